# A shell at work as configure scripts and builds have it: hundreds of processes of a few milliseconds each.
set -e
kind=$1
count=$2

shell() {
    name=$(echo "HAVE-FEATURE-$1" | tr 'A-Z-' 'a-z_')
    value=$(expr "$1" \* 3 + 1)
    case $value in *7) value=$(printf '%03d' "$value") ;; esac
    echo "$name=$value" | sed -e 's/feature_\([0-9]*\)/\1_is/' -e "s/\$/ # $1/"
    head -n 60 /inputs/less-text | grep -c "$1" || true
    head -n 40 /inputs/less-text | sort | uniq -c | cut -c 1-40 | tail -n 1
    basename "/usr/lib/$name.so" .so
    cat /inputs/small.c | wc -c
}

compile() {
    "$compiler" -fpreprocessed -O1 -quiet /inputs/small.c -o - | sed -n '/globl/p'
}

set -- /usr/lib/gcc/x86_64-linux-gnu/*/cc1
compiler=$1
i=0
while [ "$i" -lt "$count" ]; do
    i=$((i + 1))
    "$kind" "$i"
done
