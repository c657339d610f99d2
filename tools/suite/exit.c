/* The smallest program: exits with 42, without the C library. */
void _start(void) {
    __asm__ volatile("syscall" : : "a"(60), "D"(42) : "rcx", "r11", "memory");
    __builtin_unreachable();
}
