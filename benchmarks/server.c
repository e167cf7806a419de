// A server faster than any client that is measured on it: one thread, one answer for everything.
//
//   server        listens on a free port of 127.0.0.1 and prints it; ends at the end of its input
//
// Keep-alive, no parsing beyond the empty line that ends a request. A request with a body is not
// understood: the benchmarks send none.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 4096

static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n"
    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: bench\r\n\r\nok\n";
static const char END[] = "\r\n\r\n";

// How many bytes of END the input of each connection ends with.
static unsigned char matched[MOST];

static void die(const char *what) {
  perror(what);
  exit(99);
}

static void watch(int poll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void take(int poll, int listener) {
  int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  if (fd >= MOST) {
    close(fd);
    return;
  }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  matched[fd] = 0;
  watch(poll, fd);
}

static void serve(int fd) {
  char bytes[16384];
  ssize_t size = read(fd, bytes, sizeof bytes);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) {
    close(fd);
    return;
  }
  for (ssize_t i = 0; i < size; i++) {
    if (bytes[i] == END[matched[fd]])
      matched[fd]++;
    else
      matched[fd] = bytes[i] == END[0];
    if (matched[fd] == sizeof END - 1) {
      matched[fd] = 0;
      if (send(fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL) < 0) {
        close(fd);
        return;
      }
    }
  }
}

int main(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  struct epoll_event events[256];
  int poll = epoll_create1(EPOLL_CLOEXEC);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (bind(listener, (struct sockaddr *)&address, size)) die("bind");
  if (listen(listener, 1024)) die("listen");
  getsockname(listener, (struct sockaddr *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  watch(poll, listener);
  watch(poll, 0);
  for (;;) {
    int count = epoll_wait(poll, events, 256, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd == 0) return 0;
      if (fd == listener)
        take(poll, listener);
      else
        serve(fd);
    }
  }
}
