// Java at work: calls of interfaces whose classes load later, exceptions out of signals, garbage, strings, maps, locks,
// lambdas; compiled by HotSpot while it runs, and compiled again when what it assumed does not hold any more.

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

public final class Work {
    interface Voice {
        int sing(int note);
    }

    static final class Robin implements Voice {
        public int sing(int note) {
            return note * 3 + 1;
        }
    }

    // Not loaded before the loop that calls Voice.sing is compiled for Robin alone.
    static final class Wren implements Voice {
        int sung;

        public int sing(int note) {
            return note ^ ++sung;
        }
    }

    static final class Thrush implements Voice {
        public int sing(int note) {
            return Integer.rotateLeft(note, 7) - note;
        }
    }

    static final class Tree {
        final Tree left, right;

        Tree(int depth) {
            left = depth > 0 ? new Tree(depth - 1) : null;
            right = depth > 0 ? new Tree(depth - 1) : null;
        }

        int size() {
            return 1 + (left == null ? 0 : left.size() + right.size());
        }
    }

    static int choir(Voice[] voices, int rounds) {
        int sum = 17;
        for (int i = 0; i < rounds; i++) {
            sum += voices[i % voices.length].sing(sum);
        }
        return sum;
    }

    static int voices(int rounds) {
        int sum = choir(new Voice[] {new Robin()}, rounds);
        sum ^= choir(new Voice[] {new Robin(), new Wren()}, rounds);
        return sum ^ choir(new Voice[] {new Robin(), new Wren(), new Thrush()}, rounds);
    }

    // Null, zero and a full stack are seen by the processor, not by comparisons.
    static int fault(int number, int[] cells, Object[] names) {
        try {
            return cells[number % 11] / (number % 7) + names[number % 5].hashCode();
        } catch (ArithmeticException error) {
            return 1;
        } catch (ArrayIndexOutOfBoundsException error) {
            return 2;
        } catch (NullPointerException error) {
            return 3;
        }
    }

    static int faults(int rounds) {
        int[] cells = {9, 8, 7, 6, 5, 4, 3, 2, 1};
        Object[] names = {7, 11, null, 13, 17};
        int sum = 0;
        for (int i = 0; i < rounds; i++) {
            sum = sum * 31 + fault(i, cells, names);
        }
        return sum;
    }

    static int depth(int level) {
        return depth(level + 1) + 1;
    }

    static String stack() {
        try {
            return "no end at " + depth(0);
        } catch (StackOverflowError error) {
            return "full";
        }
    }

    static int garbage(int rounds) {
        Tree kept = new Tree(14);
        int sum = kept.size();
        for (int i = 0; i < rounds; i++) {
            sum += new Tree(9).size();
        }
        return sum + kept.size();
    }

    static String words(int rounds) {
        String[] list = {"mocking", "bird", "sings", "other", "voices", "never", "guest", "host"};
        Map<String, Integer> counts = new HashMap<>();
        int state = 5;
        for (int i = 0; i < rounds; i++) {
            state = state * 1103515245 + 12345;
            counts.merge(new StringBuilder(list[state >>> 16 & 7]).append(state >>> 20 & 63).toString(), 1, Integer::sum);
        }
        return counts.entrySet().stream()
            .sorted(Map.Entry.<String, Integer>comparingByValue().reversed().thenComparing(Map.Entry.comparingByKey()))
            .limit(3)
            .map(Object::toString)
            .collect(Collectors.joining(" "));
    }

    static double waves(int points) {
        double[] samples = IntStream.range(0, points).mapToDouble(i -> i % 97 * 0.125 - 6).toArray();
        for (int pass = 0; pass < 20; pass++) {
            for (int i = 1; i < points; i++) {
                samples[i] = samples[i - 1] * 0.25 + samples[i] * 0.75;
            }
        }
        double sum = 0;
        for (double sample : samples) {
            sum += sample;
        }
        return sum;
    }

    static final class Counter {
        private long value;

        synchronized void add(long amount) {
            value += amount;
        }
    }

    // Threads that meet at a lock; one of them makes garbage, for which the others have to stop where they are.
    static long threads(int rounds) throws InterruptedException {
        Counter counter = new Counter();
        List<Thread> threads = new ArrayList<>();
        for (int id = 1; id <= 4; id++) {
            int amount = id;
            threads.add(new Thread(() -> {
                for (int i = 0; i < rounds; i++) {
                    counter.add(amount);
                }
                if (amount == 1) {
                    System.gc();
                }
            }));
        }
        for (Thread thread : threads) {
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        return counter.value;
    }

    public static void main(String[] arguments) throws InterruptedException {
        System.out.println(voices(2000000));
        System.out.println(faults(300000) + " " + stack());
        System.out.println(garbage(4000));
        System.out.println(words(200000));
        System.out.println(waves(40000));
        System.out.println(threads(200000));
    }
}
