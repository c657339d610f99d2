<?php
// PHP at work: objects, interfaces, arrays, strings, closures, generators, exceptions, references, sorting, JSON; compiled by
// its JIT while it runs.
declare(strict_types=1);

interface Voice {
    public function sing(int $note): int;
}

final class Robin implements Voice {
    public function sing(int $note): int {
        return ($note * 3 + 1) % 1000003;
    }
}

final class Wren implements Voice {
    private int $sung = 0;

    public function sing(int $note): int {
        return $note ^ (++$this->sung & 1023);
    }
}

final class Tree {
    public ?Tree $left = null;
    public ?Tree $right = null;

    public function __construct(int $depth) {
        if ($depth > 0) {
            $this->left = new Tree($depth - 1);
            $this->right = new Tree($depth - 1);
        }
    }

    public function size(): int {
        return 1 + ($this->left ? $this->left->size() + $this->right->size() : 0);
    }
}

function random(int $seed): Generator {
    for (;;) {
        $seed = ($seed * 1103515245 + 12345) & 0x7fffffff;
        yield $seed >> 8;
    }
}

function choir(int $rounds): int {
    $voices = [new Robin(), new Wren(), new Robin()];
    $note = 1;
    for ($i = 0; $i < $rounds; $i++) {
        $note = $voices[$i % 3]->sing($note);
    }
    return $note;
}

function sieve(int $limit): int {
    $composite = array_fill(0, $limit, false);
    $primes = 0;
    for ($i = 2; $i < $limit; $i++) {
        if (!$composite[$i]) {
            $primes++;
            for ($j = $i * $i; $j < $limit; $j += $i) {
                $composite[$j] = true;
            }
        }
    }
    return $primes;
}

function words(int $rounds): string {
    $names = ['mocking', 'bird', 'sings', 'other', 'voices', 'never', 'guest', 'host'];
    $counts = [];
    $next = random(5);
    for ($i = 0; $i < $rounds; $i++) {
        $number = $next->current();
        $next->next();
        $word = $names[$number & 7] . ($number >> 4 & 63);
        $counts[$word] = ($counts[$word] ?? 0) + 1;
    }
    uksort($counts, fn(string $a, string $b): int => $counts[$b] <=> $counts[$a] ?: strcmp($a, $b));
    $text = implode(' ', array_slice(array_keys($counts), 0, 5));
    return strtoupper(preg_replace('/(\w)(\d+)/', '$2$1', $text));
}

function waves(int $points): float {
    $samples = [];
    for ($i = 0; $i < $points; $i++) {
        $samples[] = $i % 97 * 0.125 - 6;
    }
    for ($pass = 0; $pass < 10; $pass++) {
        for ($i = 1; $i < $points; $i++) {
            $samples[$i] = $samples[$i - 1] * 0.25 + $samples[$i] * 0.75;
        }
    }
    return array_sum($samples);
}

function faults(int $rounds): int {
    $sum = 0;
    for ($i = 0; $i < $rounds; $i++) {
        try {
            $sum += intdiv($i, $i % 5);
            if ($i % 7 === 3) {
                throw new RangeException("number $i");
            }
        } catch (DivisionByZeroError) {
            $sum += 2;
        } catch (RangeException $error) {
            $sum += strlen($error->getMessage());
        }
    }
    return $sum;
}

// Text that grows by pieces, is taken apart again, and changes in place.
function text(int $rounds): int {
    $text = '';
    for ($i = 0; $i < $rounds; $i++) {
        $text .= dechex($i * 7919) . ($i % 11 ? ' ' : "\n");
    }
    $sum = 0;
    foreach (explode("\n", $text) as $number => &$line) {
        $line = ucwords($line);
        $sum = ($sum * 31 + crc32($line) + $number) % 1000003;
    }
    return $sum;
}

echo choir(1500000), ' ', sieve(800000), ' ', words(60000), "\n";
printf("%.9f %d %d %d\n", waves(30000), (new Tree(15))->size(), faults(60000), text(40000));
$rows = array_map(fn(int $id): array => ['id' => $id, 'name' => "row $id", 'half' => $id / 2], range(0, 8000));
usort($rows, fn(array $a, array $b): int => $a['id'] * 7919 % 8009 <=> $b['id'] * 7919 % 8009);
echo md5(json_encode(json_decode(json_encode($rows), true))), "\n";
