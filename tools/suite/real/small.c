/* What a configure script has compiled: little. */
int answer(const char *text, int number) {
    int sum = 0;
    while (*text) {
        sum = sum * 31 + *text++;
    }
    return sum % (number | 1);
}

int main(void) {
    return answer("conftest", 42);
}
