#!/bin/sh
# Many crops, dense, or both: which test-time evaluation of the VGG paper is worth its time?
# usage: sh vgg_evaluation.sh CIFAR10/        (a folder with train/ and test/ of class folders)
# On the VGG for 32 px that pooling_study.sh leaves, or else one trained here in the same way, at three
# scales: 32, 40 and 48 px. `evaluate` shows what each costs beside what it brings.
set -eu
photos=$1
shift
head=runs/pool-kept
[ -d $head ] || tlkit fit "$photos" --backbone vgg_small --attach last --optimizer adam --lr 1e-4 \
    --weight-decay 0 --schedule constant --batch 64 --augment none --epochs 10 --val-fraction 0.05 \
    --out $head "$@"
for policy in vgg150 dense dense+crops; do
    tlkit evaluate "$photos/test" --head $head --tta $policy --scales 32,40,48
done
