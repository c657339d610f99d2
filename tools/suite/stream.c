/*
 * A TCP connection of fixed work to a peer on the host (tools/compare/devices.py): a stream either way, or requests and answers.
 * Prints "row NAME devices BYTES SECONDS". What is received is compared with what was to come, after the time was taken.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A stream is made of blocks: the block's number, then words that are the same in each. The peer knows them, too. */
#define WORDS 8192
#define BLOCK (WORDS * sizeof(uint64_t))
#define REQUEST 64

enum { SEND, RECEIVE, PING };

static uint64_t block[WORDS];

static void die(const char *what) {
    fprintf(stderr, "suite-stream: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec time;
    if (clock_gettime(CLOCK_MONOTONIC, &time) != 0) {
        die("CLOCK_MONOTONIC");
    }
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void send_all(int peer, const void *bytes, size_t length) {
    for (size_t sent = 0; sent < length;) {
        ssize_t count = write(peer, (const char *)bytes + sent, length - sent);
        if (count <= 0) {
            die("write");
        }
        sent += (size_t)count;
    }
}

static void receive_all(int peer, void *bytes, size_t length) {
    for (size_t got = 0; got < length;) {
        ssize_t count = read(peer, (char *)bytes + got, length - got);
        if (count <= 0) {
            die("read");
        }
        got += (size_t)count;
    }
}

/* The peer answers with a byte when it has everything. */
static void send_stream(int peer, uint64_t blocks) {
    char answer;
    for (uint64_t number = 0; number < blocks; number++) {
        block[0] = number;
        send_all(peer, block, sizeof block);
    }
    receive_all(peer, &answer, 1);
}

static void compare(const char *bytes, uint64_t blocks) {
    for (uint64_t number = 0; number < blocks; number++) {
        block[0] = number;
        if (memcmp(bytes + number * BLOCK, block, sizeof block) != 0) {
            fprintf(stderr, "suite-stream: block %llu is wrong\n", (unsigned long long)number);
            exit(1);
        }
    }
}

static void ping(int peer, uint64_t requests) {
    for (uint64_t number = 0; number < requests; number++) {
        char answer[REQUEST];
        block[0] = number;
        send_all(peer, block, REQUEST);
        receive_all(peer, answer, REQUEST);
        if (memcmp(answer, block, REQUEST) != 0) {
            fprintf(stderr, "suite-stream: answer %llu is wrong\n", (unsigned long long)number);
            exit(1);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fputs("usage: suite-stream NAME ADDRESS PORT send|receive|ping COUNT\n"
              "Sends or receives COUNT blocks of 64 KiB, or sends COUNT requests of 64 bytes and waits for each answer.\n",
              stderr);
        return 2;
    }
    uint64_t what = strcmp(argv[4], "send") == 0 ? SEND : strcmp(argv[4], "receive") == 0 ? RECEIVE : PING;
    uint64_t count = strtoull(argv[5], NULL, 10);
    for (uint64_t i = 0, word = 1; i < WORDS; i++) {
        block[i] = word;
        word = word * 6364136223846793005 + 1442695040888963407;
    }
    char *bytes = NULL;
    if (what == RECEIVE) {
        bytes = mmap(NULL, count * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (bytes == MAP_FAILED) {
            die("mmap");
        }
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    int peer = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (peer < 0 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1 ||
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) {
        die(argv[2]);
    }
    double start = now();
    if (connect(peer, (struct sockaddr *)&address, sizeof address) != 0) {
        die("connect");
    }
    uint64_t header[2] = {what, count};
    send_all(peer, header, sizeof header);
    if (what == SEND) {
        send_stream(peer, count);
    } else if (what == RECEIVE) {
        receive_all(peer, bytes, count * BLOCK);
    } else {
        ping(peer, count);
    }
    double seconds = now() - start;
    if (what == RECEIVE) {
        compare(bytes, count);
    }
    uint64_t moved = count * (what == PING ? 2 * REQUEST : BLOCK);
    printf("row %s devices %016llx %.6f\n", argv[1], (unsigned long long)moved, seconds);
    return 0;
}
