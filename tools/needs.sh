# Sourced by scripts that have `die`.
# shellcheck shell=bash

# needs PROGRAM:PACKAGE...: ends with all packages that are missing, in one line. What has a slash is a file.
needs() {
    local pair missing=()
    for pair in "$@"; do
        if [[ $pair == */* ]]; then
            [[ -s ${pair%:*} ]] && continue
        else
            command -v "${pair%:*}" >/dev/null && continue
        fi
        [[ " ${missing[*]-} " == *" ${pair##*:} "* ]] || missing+=("${pair##*:}")
    done
    [[ ${#missing[@]} -eq 0 ]] || die "missing here: apt-get install ${missing[*]}"
}
