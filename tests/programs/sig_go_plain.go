// Works on a job and knows nothing of signals: Go itself takes SIGTERM, and the job is lost.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	fmt.Printf("ready (pid: %d)\n", os.Getpid())
	time.Sleep(time.Hour)
	fmt.Println("job done")
}
