/*
 * What a small frame costs to read from a TAP: one read(2) each, beside io_uring with batches of reads.
 * Not part of the bench: it backs a decision in docs/performance.md, "Tried and rejected".
 *
 *   gcc -O2 -o /tmp/tap-read bench/experiments/tap-read.c
 *   ip netns add weft-tap-read && ip netns exec weft-tap-read /tmp/tap-read; ip netns del weft-tap-read
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { QUEUED = 900, ROUNDS = 300, FRAME_BYTES = 2048, BATCH_MAX = 64, NOWAIT = 8 };

static int tap, out;
static char frames[BATCH_MAX][FRAME_BYTES];

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static void must(int ok, const char *what) {
  if (ok) return;
  perror(what);
  exit(1);
}

static void open_tap(void) {
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
  to.sin_addr.s_addr = inet_addr("10.99.0.2");
  strcpy(request.ifr_name, "tap0");
  tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  must(ioctl(tap, TUNSETIFF, &request) == 0, "TUNSETIFF");
  must(system("ip addr add 10.99.0.1/24 dev tap0 && ip link set tap0 up txqueuelen 1000 &&"
              " ip neigh add 10.99.0.2 lladdr 02:00:00:00:00:02 dev tap0 nud permanent") == 0, "ip");
  out = socket(AF_INET, SOCK_DGRAM, 0);
  must(connect(out, (void *)&to, sizeof to) == 0, "connect");
  usleep(200000);
  while (read(tap, frames[0], FRAME_BYTES) > 0);
}

static void fill(void) {
  char payload[64] = {0};
  for (int i = 0; i < QUEUED; i++) send(out, payload, sizeof payload, 0);
}

static void by_read(void) {
  double spent = 0;
  long count = 0;
  for (int round = 0; round < ROUNDS; round++) {
    fill();
    double start = now_ns();
    while (read(tap, frames[count % BATCH_MAX], FRAME_BYTES) > 0) count++;
    spent += now_ns() - start;
  }
  printf("read(2): %.0f ns per frame\n", spent / count);
}

static void by_uring(int ring, struct io_uring_params *p, int batch) {
  char *sq = mmap(0, p->sq_off.array + p->sq_entries * 4, 3, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  char *cq = mmap(0, p->cq_off.cqes + p->cq_entries * 16, 3, MAP_SHARED, ring, IORING_OFF_CQ_RING);
  struct io_uring_sqe *sqes = mmap(0, p->sq_entries * 64, 3, MAP_SHARED, ring, IORING_OFF_SQES);
  unsigned *tail = (void *)(sq + p->sq_off.tail), *array = (void *)(sq + p->sq_off.array);
  unsigned *head = (void *)(cq + p->cq_off.head), *end = (void *)(cq + p->cq_off.tail);
  unsigned sq_mask = *(unsigned *)(sq + p->sq_off.ring_mask);
  unsigned cq_mask = *(unsigned *)(cq + p->cq_off.ring_mask);
  struct io_uring_cqe *cqes = (void *)(cq + p->cq_off.cqes);
  double spent = 0;
  long count = 0;
  for (int round = 0; round < ROUNDS; round++) {
    fill();
    double start = now_ns();
    for (int more = 1; more;) {
      unsigned at = *tail;
      for (int i = 0; i < batch; i++) {
        unsigned slot = (at + i) & sq_mask;
        sqes[slot] = (struct io_uring_sqe){.opcode = IORING_OP_READ, .fd = tap, .off = -1,
          .addr = (unsigned long)frames[i], .len = FRAME_BYTES, .rw_flags = NOWAIT};
        array[slot] = slot;
      }
      __atomic_store_n(tail, at + batch, __ATOMIC_RELEASE);
      must(syscall(SYS_io_uring_enter, ring, batch, batch, IORING_ENTER_GETEVENTS, 0, 0) >= 0, "enter");
      unsigned done = *head, last = __atomic_load_n(end, __ATOMIC_ACQUIRE);
      for (; done != last; done++) {
        if (cqes[done & cq_mask].res > 0) count++;
        else more = 0;
      }
      __atomic_store_n(head, done, __ATOMIC_RELEASE);
    }
    spent += now_ns() - start;
  }
  printf("io_uring, %d reads at once: %.0f ns per frame\n", batch, spent / count);
}

int main(void) {
  struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN};
  open_tap();
  by_read();
  int ring = syscall(SYS_io_uring_setup, BATCH_MAX, &p);
  must(ring >= 0, "io_uring_setup");
  for (int batch = 8; batch <= BATCH_MAX; batch *= 2) by_uring(ring, &p, batch);
  by_read();
  return 0;
}
