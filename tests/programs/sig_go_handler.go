// Works on a job and finishes it on SIGTERM.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	fmt.Printf("ready (pid: %d)\n", os.Getpid())
	<-asked
	fmt.Println("job done")
}
