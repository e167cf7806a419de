// The probe application on Go's net/http: go run main.go PORT [graceful]
//
// The same paths and the same ledger as lastcall.drill.probe. Without "graceful" nobody handles
// SIGTERM, as in most programs; with it, Shutdown ends the listener and waits for the requests.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var (
	ledger *os.File
	keys   = regexp.MustCompile(`^[A-Za-z0-9._:-]{0,200}$`)
)

func note(key, step string) {
	if key != "" && ledger != nil {
		if _, err := ledger.WriteString(key + " " + step + "\n"); err != nil {
			log.Print(err)
		}
	}
}

func pay(key string) {
	note(key, "begun")
	note(key, "paid")
}

func order(key string) { note(key, "ordered") }

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	io.WriteString(w, text)
}

func number(r *http.Request, name string, without float64) (float64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return without, nil
	}
	return strconv.ParseFloat(text, 64)
}

func stream(w http.ResponseWriter, path, key string, wait time.Duration, pieces int) {
	line := func(text string) string {
		if path == "/events" {
			return "data: " + text + "\n\n"
		}
		return text + "\n"
	}
	last := line(strings.TrimSpace("done " + key))
	piece := func(i int) string { return line(fmt.Sprintf("piece %06d", i)) }
	w.Header().Set("Content-Type", "text/plain")
	switch path {
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
	case "/length":
		w.Header().Set("Content-Length", strconv.Itoa(pieces*len(piece(1))+len(last)))
	}
	pay(key)
	w.WriteHeader(http.StatusOK)
	out := w.(http.Flusher)
	out.Flush()
	for i := 1; i <= pieces; i++ {
		time.Sleep(wait / time.Duration(pieces))
		if _, err := io.WriteString(w, piece(i)); err != nil {
			return // the client left in the middle
		}
		out.Flush()
	}
	order(key)
	io.WriteString(w, last)
}

func handle(w http.ResponseWriter, r *http.Request) {
	path, key := r.URL.Path, r.URL.Query().Get("key")
	seconds, bad := number(r, "s", 0)
	pieces, worse := number(r, "n", 10)
	if bad != nil || worse != nil || !keys.MatchString(key) ||
		!(seconds >= 0 && seconds <= 3600) || !(pieces >= 1 && pieces <= 100000) {
		answer(w, http.StatusBadRequest, "key, s or n makes no sense\n")
		return
	}
	taken, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return // the client left in the middle
	}
	wait := time.Duration(seconds * float64(time.Second))
	switch path {
	case "/", "/health":
		answer(w, http.StatusOK, "ok\n")
	case "/fast", "/slow", "/poll", "/upload":
		pay(key)
		if path == "/slow" || path == "/poll" {
			time.Sleep(wait)
		}
		order(key)
		if path == "/upload" {
			answer(w, http.StatusOK, strconv.FormatInt(taken, 10)+"\n")
		} else {
			answer(w, http.StatusOK, strings.TrimSpace("done "+key)+"\n")
		}
	case "/stream", "/length", "/events":
		stream(w, path, key, wait, int(pieces))
	default:
		answer(w, http.StatusNotFound, "no such path\n")
	}
}

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: main PORT [graceful]")
	}
	var err error
	if path := os.Getenv("LASTCALL_LEDGER"); path != "" {
		// O_APPEND: the lines of several processes never mix.
		if ledger, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
			log.Fatal(err)
		}
	}
	slow, _ := strconv.ParseFloat(os.Getenv("LASTCALL_SLOW_BOOT"), 64)
	time.Sleep(time.Duration(slow * float64(time.Second)))
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("ready (pid: %d)\n", os.Getpid())
	server := &http.Server{Handler: http.HandlerFunc(handle)}
	drained := make(chan struct{})
	if len(os.Args) > 2 && os.Args[2] == "graceful" {
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGTERM)
		go func() {
			<-asked
			server.Shutdown(context.Background())
			close(drained)
		}()
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-drained // Serve returns at once; the requests in hand are what Shutdown waits for
}
