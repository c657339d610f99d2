# Ruby at work: methods that are defined again, blocks, symbols, hashes, strings, exceptions, method_missing, big numbers,
# fibers, garbage; compiled by YJIT while it runs.

class Bird
  attr_accessor :songs

  def initialize(weight)
    @weight = weight
    @songs = 0
  end

  def sing(note)
    @songs += 1
    (note * 3 + @weight) % 1_000_003
  end
end

class Thrush < Bird
  def sing(note)
    super + @songs % 7
  end
end

# Answers for what nobody defined, and has it defined then.
class Mocking < Bird
  def method_missing(name, *arguments)
    return super unless name.to_s.start_with?("like_")

    self.class.define_method(name) { |note| (note ^ name.size) % 1_000_003 }
    public_send(name, *arguments)
  end

  def respond_to_missing?(name, all = false)
    name.to_s.start_with?("like_") || super
  end
end

Node = Struct.new(:left, :right)

def choir(rounds)
  birds = [Bird.new(1), Thrush.new(2), Bird.new(3), Mocking.new(4)]
  note = 1
  rounds.times { |i| note = birds[i % 4].sing(note) }
  40.times { |i| note = birds[3].public_send(:"like_#{i % 9}", note) }
  note
end

# What was compiled for a method is wrong once the method is another, even one of the core's.
def redefined(rounds)
  sum = 0
  6.times do |step|
    Bird.class_eval("def sing(note) = (note * #{step + 3} + @weight) % 1_000_003", __FILE__, __LINE__)
    sum ^= choir(rounds)
  end
  Integer.class_eval { alias_method :old_plus, :+ }
  before = 1 + 2
  Integer.class_eval { def +(other) = old_plus(other).old_plus(1) }
  after = before + 4
  Integer.class_eval { alias_method :+, :old_plus }
  [sum, before, after, before + 4]
end

def words(rounds)
  names = %w[mocking bird sings other voices never guest host]
  counts = Hash.new(0)
  state = 5
  rounds.times do
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff
    counts["#{names[state >> 8 & 7]}#{state >> 12 & 63}"] += 1
  end
  counts.sort_by { |word, count| [-count, word] }.first(5).map { |word, _| word.gsub(/(\w)(\d+)/, '\2\1').capitalize }.join(" ")
end

def sieve(limit)
  composite = Array.new(limit, false)
  primes = 0
  i = 2
  while i < limit
    unless composite[i]
      primes += 1
      (i * i).step(limit - 1, i) { |j| composite[j] = true }
    end
    i += 1
  end
  primes
end

def tree(depth)
  depth.positive? ? Node.new(tree(depth - 1), tree(depth - 1)) : Node.new
end

def size(node)
  node.left ? 1 + size(node.left) + size(node.right) : 1
end

def faults(rounds)
  sum = 0
  rounds.times do |i|
    begin
      raise ArgumentError, "number #{i}" if i % 7 == 3

      sum += i / (i % 5)
    rescue ZeroDivisionError
      sum += 2
    rescue ArgumentError => error
      sum += error.message.size
    ensure
      sum += 1
    end
  end
  sum
end

def fibers(rounds)
  source = Fiber.new { rounds.times { |i| Fiber.yield(i * i % 101) } }
  Array.new(rounds) { source.resume }.sum
end

def down(level)
  down(level + 1) + 1
end

def stack
  down(0)
rescue SystemStackError
  "full"
end

puts choir(400_000), redefined(50_000).inspect, words(30_000)
puts sieve(300_000), size(tree(14)), faults(30_000), fibers(30_000), stack
puts (1..400).inject(:*).digits.sum, (0..3000).map { |i| i * 0.125 }.each_slice(7).sum { |slice| slice.max - slice.min }
GC.start
