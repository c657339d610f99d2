"""Python at work: classes, dictionaries, strings, lists, big integers, regular expressions, JSON."""

import json
import re


class Account:
    def __init__(self, number):
        self.number = number
        self.balance = 0

    def move(self, amount):
        self.balance = (self.balance * 3 + amount) % 1000003
        return self.balance


def ledger(rounds):
    accounts = [Account(number) for number in range(100)]
    state = 1
    for _ in range(rounds):
        state = (state * 1103515245 + 12345) % 2147483648
        accounts[state >> 8 & 63].move(state >> 16)
    return sum(account.balance for account in accounts)


def words(rounds):
    counts = {}
    text = "the mocking bird sings in other voices and never tires of 17 songs or 23 calls"
    for number in range(rounds):
        for word in text.split():
            counts[word] = counts.get(word, 0) + number
        text = text[1:] + text[0]
    numbers = re.findall(r"\b(\d+) (\w+)", text * 20)
    return len(counts), sorted(counts.items())[:5], len(numbers)


def primes(limit):
    composite = bytearray(limit)
    for number in range(2, limit):
        if not composite[number]:
            for multiple in range(number * number, limit, number):
                composite[multiple] = 1
    return limit - 2 - sum(composite)


def digits(count):
    number = 1
    for factor in range(2, count):
        number *= factor
    return sum(map(int, str(number)))


print(ledger(150000))
print(words(4000))
print(primes(150000))
print(digits(700))
rows = [{"id": number, "name": f"row {number}", "half": number / 2} for number in range(4000)]
print(len(json.dumps(rows)), json.loads(json.dumps(rows))[-1])
