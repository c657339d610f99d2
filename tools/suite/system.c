/* Programs whose time goes into the kernel: system calls, faults, processes, pipes, files. */
#define _GNU_SOURCE
#include "suite.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

uint64_t getpid_loop(uint32_t count) {
    long self = syscall(SYS_getpid);
    uint64_t same = 0;
    for (uint32_t pass = 0; pass < count; pass++) {
        same += syscall(SYS_getpid) == self;
    }
    return mix(MIX_START, same);
}

/* Maps 256 pages, touches each, unmaps them. */
uint64_t page_faults(uint32_t count) {
    const size_t length = 256 * PAGE;
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        uint8_t *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
            die("mmap");
        }
        for (size_t at = 0; at < length; at += PAGE) {
            memory[at] += (uint8_t)(pass + at / PAGE);
            sum = mix(sum, memory[at]);
        }
        munmap(memory, length);
    }
    return sum;
}

/* Waits for a child and returns its exit code. */
static int exit_code(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child) {
        die("waitpid");
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Runs suite-exit, the smallest program there is, which lies beside this one. */
uint64_t fork_exec(uint32_t count) {
    char path[512];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 16);
    if (length < 0) {
        die("/proc/self/exe");
    }
    path[length] = 0;
    strcpy(strrchr(path, '/') + 1, "suite-exit");
    char *const arguments[] = {path, NULL};
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        pid_t child = fork();
        if (child < 0) {
            die("fork");
        }
        if (child == 0) {
            execv(path, arguments);
            _exit(1);
        }
        sum = mix(sum, (uint64_t)exit_code(child));
    }
    return sum;
}

/* Two processes that send each other a byte in turn. */
uint64_t pipe_ping_pong(uint32_t count) {
    int ping[2], pong[2];
    if (pipe(ping) != 0 || pipe(pong) != 0) {
        die("pipe");
    }
    pid_t child = fork();
    if (child < 0) {
        die("fork");
    }
    if (child == 0) {
        uint8_t byte;
        close(ping[1]);
        while (read(ping[0], &byte, 1) == 1) {
            byte = (uint8_t)(byte * 5 + 1);
            if (write(pong[1], &byte, 1) != 1) {
                _exit(1);
            }
        }
        _exit(42);
    }
    close(ping[0]);
    uint64_t sum = MIX_START;
    uint8_t byte = 0;
    for (uint32_t pass = 0; pass < count; pass++) {
        if (write(ping[1], &byte, 1) != 1 || read(pong[0], &byte, 1) != 1) {
            die("a pipe");
        }
        sum = mix(sum, byte);
    }
    close(ping[1]);
    close(pong[0]);
    close(pong[1]);
    return mix(sum, (uint64_t)exit_code(child));
}

/* Writes and reads a file of 1 MiB on tmpfs in pieces of a page. */
uint64_t file_io(uint32_t count) {
    static uint8_t block[PAGE];
    char path[256];
    snprintf(path, sizeof path, "%s/suite-file", scratch);
    uint64_t sum = MIX_START;
    for (uint32_t pass = 0; pass < count; pass++) {
        int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (file < 0) {
            die(path);
        }
        for (uint32_t i = 0; i < 256; i++) {
            memset(block, (int)(pass + i), 64);
            if (write(file, block, PAGE) != PAGE) {
                die(path);
            }
        }
        lseek(file, 0, SEEK_SET);
        while (read(file, block, PAGE) == PAGE) {
            sum = mix(sum, block[63]);
        }
        sum = mix(sum, (uint64_t)lseek(file, 0, SEEK_CUR));
        close(file);
        unlink(path);
    }
    return sum;
}
