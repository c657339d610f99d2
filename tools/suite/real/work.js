// JavaScript at work: closures, objects, typed arrays, strings, maps, sorting, JSON; compiled by V8 while it runs.
"use strict";

function random(seed) {
    let state = seed >>> 0;
    return () => {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        return state >>> 8;
    };
}

class Tree {
    constructor(depth) {
        this.left = depth > 0 ? new Tree(depth - 1) : null;
        this.right = depth > 0 ? new Tree(depth - 1) : null;
    }
    size() {
        return 1 + (this.left ? this.left.size() + this.right.size() : 0);
    }
}

function sieve(limit) {
    const composite = new Uint8Array(limit);
    let primes = 0;
    for (let i = 2; i < limit; i++) {
        if (composite[i]) continue;
        primes++;
        for (let j = i * i; j < limit; j += i) composite[j] = 1;
    }
    return primes;
}

function words(rounds) {
    const next = random(5), counts = new Map();
    const list = ["mocking", "bird", "sings", "other", "voices", "never", "guest", "host"];
    for (let i = 0; i < rounds; i++) {
        const word = list[next() & 7] + (next() & 63);
        counts.set(word, (counts.get(word) || 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 3).join(" ");
}

function waves(points) {
    let sum = 0;
    const samples = new Float64Array(points);
    for (let i = 0; i < points; i++) samples[i] = (i % 97) * 0.125 - 6;
    for (let pass = 0; pass < 20; pass++) {
        for (let i = 1; i < points; i++) samples[i] = samples[i - 1] * 0.25 + samples[i] * 0.75;
    }
    for (const sample of samples) sum += sample;
    return sum;
}

const next = random(9);
const rows = Array.from({length: 20000}, (_, id) => ({id, key: next() % 1000, name: `row ${id}`}));
rows.sort((a, b) => a.key - b.key || a.id - b.id);
console.log(sieve(600000), words(60000), new Tree(14).size(), waves(40000));
console.log(JSON.stringify(JSON.parse(JSON.stringify(rows)).slice(0, 3)));
