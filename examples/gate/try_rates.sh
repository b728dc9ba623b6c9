#!/bin/sh
# Tries step sizes until one has an F1 that is 2 points or more above that of 0.05, with other seeds as well.

# better FOLDER RATE SEED: compares a rate with 0.05 in 12 pairs from this seed on; 0 supported, 1 not
better() {
    python main.py -m +sweep=rate "hydra.sweeper.arms=['rate=0.05','rate=$2']" \
        hydra.sweep.dir="$1" hydra.sweeper.first_seed="$3" || exit
    joyful report "$1" --require f1=at_least:2
    case $? in
        0) return 0 ;;
        3 | 4) return 1 ;; # contradicted, or undecided
        *) exit 2 ;;
    esac
}

for rate in 0.06 0.08 0.1 0.12; do
    if better "multirun/rate_$rate" "$rate" 1 && better "multirun/rate_${rate}_again" "$rate" 101; then
        echo "rate=$rate is supported twice"
        exit 0
    fi
done
echo "no rate is supported"
exit 3
