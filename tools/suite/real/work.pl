# Perl at work: hashes, regular expressions, strings, sorting, calls.
use strict;
use warnings;
no warnings 'recursion';

my ($lines, %counts, %after) = (0);
my $last = '';
open my $file, '<', '/inputs/text' or die "no text: $!";
while (my $line = <$file>) {
    last if ++$lines > 10000;
    chomp $line;
    for my $word (split / +/, $line) {
        $counts{$word}++;
        $after{"$last $word"}++;
        $last = $word;
    }
    $line =~ s/(\w+)ing(\w*)/$2$1/g;
    $counts{numbers} += $1 while $line =~ /(\d+)/g;
}
close $file;

sub ackermann {
    my ($m, $n) = @_;
    return $n + 1 if $m == 0;
    return ackermann($m - 1, 1) if $n == 0;
    return ackermann($m - 1, ackermann($m, $n - 1));
}

print "$_ $counts{$_}\n" for sort { $counts{$b} <=> $counts{$a} || $a cmp $b } keys %counts;
print scalar(keys %after), "\n", ackermann(2, 60), "\n";
