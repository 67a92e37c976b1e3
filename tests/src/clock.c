// A clock that a test puts forward, for a program that knows nothing of it: LD_PRELOAD brings this into it, and it tells the
// kernel's time and what the file says in nanoseconds. Who waits looks at the clock again after each slice of time.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define MILLISECOND 1000000LL
#define SLICE (5 * MILLISECOND)

static _Atomic int64_t as_it_is;
static _Atomic int64_t *ahead = &as_it_is;

__attribute__((constructor)) static void open_file(void) {
  const char *path = getenv("POSTERN_TESTS_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) {
    return;
  }
  void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (page != MAP_FAILED) {
    ahead = page;
  }
}

static int64_t nanoseconds(const struct timespec *time) { return time->tv_sec * SECOND + time->tv_nsec; }

static struct timespec timespec_of(int64_t nanoseconds) {
  return (struct timespec){.tv_sec = nanoseconds / SECOND, .tv_nsec = nanoseconds % SECOND};
}

// Time that a process or a thread has used is nobody's to put forward.
static int is_used_time(clockid_t clock) {
  return clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*kernels)(clockid_t, struct timespec *);
  if (!kernels) {
    kernels = dlsym(RTLD_NEXT, "clock_gettime");
  }
  int result = kernels(clock, time);
  if (result == 0 && !is_used_time(clock)) {
    *time = timespec_of(nanoseconds(time) + *ahead);
  }
  return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *time = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
  return 0;
}

static int64_t now_by(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return nanoseconds(&now);
}

static int64_t now(void) { return now_by(CLOCK_MONOTONIC); }

// How long to wait before the next look; 0 where it is time.
static int64_t slice(int64_t deadline) {
  int64_t left = deadline - now();
  return left < 0 ? 0 : left < SLICE ? left : SLICE;
}

static long kernel(long number, long a, long b, long c, long d, long e, long f) {
  static long (*kernels)(long, ...);
  if (!kernels) {
    kernels = dlsym(RTLD_NEXT, "syscall");
  }
  return kernels(number, a, b, c, d, e, f);
}

static int sleep_until(int64_t deadline) {
  for (int64_t left; (left = slice(deadline)) > 0;) {
    struct timespec part = timespec_of(left);
    if (kernel(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&part, 0, 0, 0) != 0) {
      return errno;
    }
  }
  return 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left) {
  (void)left;
  int64_t from = flags & TIMER_ABSTIME ? now_by(clock) : 0;
  return sleep_until(now() + nanoseconds(wanted) - from);
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
  (void)left;
  errno = sleep_until(now() + nanoseconds(wanted));
  return errno == 0 ? 0 : -1;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout_ms) {
  if (timeout_ms <= 0) {
    return kernel(SYS_epoll_pwait, epoll, (long)events, most, timeout_ms, 0, 0);
  }
  int64_t deadline = now() + timeout_ms * MILLISECOND;
  for (;;) {
    int part_ms = (slice(deadline) + MILLISECOND - 1) / MILLISECOND;
    int ready = kernel(SYS_epoll_pwait, epoll, (long)events, most, part_ms, 0, 0);
    if (ready != 0 || now() >= deadline) {
      return ready;
    }
  }
}

static long futex_wait(long word, long operation, long value, const struct timespec *wanted) {
  int64_t from = 0;
  if ((operation & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) {
    from = now_by(operation & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC);
  }
  int64_t deadline = now() + nanoseconds(wanted) - from;
  for (;;) {
    struct timespec part = timespec_of(slice(deadline));
    long result = kernel(SYS_futex, word, FUTEX_WAIT | (operation & FUTEX_PRIVATE_FLAG), value, (long)&part, 0, 0);
    if (result == 0 || errno != ETIMEDOUT) {
      return result;
    }
    if (now() >= deadline) {
      errno = ETIMEDOUT;
      return -1;
    }
  }
}

// Rust's standard library waits on futexes by this.
long syscall(long number, ...) {
  va_list rest;
  va_start(rest, number);
  long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
  long d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
  va_end(rest);
  int command = b & FUTEX_CMD_MASK;
  if (number == SYS_futex && d != 0 && (command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET)) {
    return futex_wait(a, b, c, (const struct timespec *)d);
  }
  return kernel(number, a, b, c, d, e, f);
}
