// What the benchmarks need in C, so that no interpreter stands between a moment and its record.
//
//   helper victim NAME DELAY_MS FIFO          a process that ends DELAY_MS after SIGTERM
//   helper orphan NAME DELAY_MS FIFO          the same, below a parent that reaps it at once
//   helper crowd COUNT NAME DELAY_MS FIFO     COUNT of them below one such parent
//   helper run RESULT_FD COMMAND [WORD...]    runs a command and tells what it took
//
// A victim writes two records of 16 bytes to the FIFO: (pid, 0) when it is ready, and (pid, now)
// as its very last act. `run` writes six numbers of 8 bytes: when it started the command and when
// that came back (CLOCK_MONOTONIC, ns), its user and system time (us), its peak memory (KiB) and
// its wait status. It forks itself: the kernel counts what was in memory before an exec as part of
// the peak, and a fork of the harness would count the harness.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
  perror(what);
  _exit(99);
}

static void on_term(int signum) { (void)signum; }

// Writes to a pipe of at most PIPE_BUF bytes are whole, whoever else writes.
static void tell(int fifo, int64_t moment_ns) {
  int64_t record[2] = {getpid(), moment_ns};
  if (write(fifo, record, sizeof record) != sizeof record) die("write");
}

// Called with SIGTERM blocked: it can come only while we wait for it.
static void victim(const char *name, int64_t delay_ms, const char *path) {
  sigset_t none;
  struct sigaction handler = {.sa_handler = on_term};
  struct timespec delay = {delay_ms / 1000, delay_ms % 1000 * 1000000};
  int fifo = open(path, O_WRONLY | O_CLOEXEC);
  if (fifo < 0) die(path);
  prctl(PR_SET_NAME, name);
  sigaction(SIGTERM, &handler, NULL);
  sigemptyset(&none);
  tell(fifo, 0);
  sigsuspend(&none);
  if (delay_ms) nanosleep(&delay, NULL);
  tell(fifo, now_ns());
  _exit(0);
}

static void crowd(int count, char **words) {
  for (int i = 0; i < count; i++) {
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL); // nobody is left behind when the harness is killed
      victim(words[0], atoll(words[1]), words[2]);
    }
  }
  while (wait(NULL) > 0) {
  }
}

static int run(int result_fd, char **command) {
  struct rusage used;
  int status;
  int64_t started_ns = now_ns();
  pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid == 0) {
    close(result_fd);
    execvp(command[0], command);
    die(command[0]);
  }
  while (wait4(pid, &status, 0, &used) < 0) {
  }
  int64_t returned_ns = now_ns();
  int64_t record[6] = {
      started_ns,
      returned_ns,
      (int64_t)used.ru_utime.tv_sec * 1000000 + used.ru_utime.tv_usec,
      (int64_t)used.ru_stime.tv_sec * 1000000 + used.ru_stime.tv_usec,
      used.ru_maxrss,
      status,
  };
  if (write(result_fd, record, sizeof record) != sizeof record) die("write");
  return 0;
}

int main(int argc, char **argv) {
  sigset_t term;
  if (argc >= 4 && !strcmp(argv[1], "run")) return run(atoi(argv[2]), argv + 3);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, NULL);
  if (argc == 5 && !strcmp(argv[1], "victim")) victim(argv[2], atoll(argv[3]), argv[4]);
  if (argc == 5 && !strcmp(argv[1], "orphan")) return crowd(1, argv + 2), 0;
  if (argc == 6 && !strcmp(argv[1], "crowd")) return crowd(atoi(argv[2]), argv + 3), 0;
  fprintf(stderr, "usage: see the top of helper.c\n");
  return 2;
}
