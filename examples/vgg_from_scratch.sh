#!/bin/sh
# Does a VGG learn from few photos, and do two of them know more than one?
# usage: sh vgg_from_scratch.sh PHOTOS/       (a folder with train/ and test/ of class folders)
# Two nets that see the images differently: one at the network's size, one in random crops of larger
# ones; their outputs are summed before the softmax (soft voting). `evaluate` prints each class.
set -eu
photos=$1
shift
recipe="--backbone vgg_small --attach last --batch 32 --optimizer adam --lr 1e-4
    --weight-decay 0 --schedule constant --epochs 10"

tlkit fit "$photos" $recipe --augment mirror --out runs/vgg-whole "$@"
tlkit fit "$photos" $recipe --augment vgg --jitter 36,36 --out runs/vgg-crops "$@"
tlkit evaluate "$photos/test" --head runs/vgg-whole --head runs/vgg-crops --combine logits

# The paper's own optimisation: SGD with momentum, the rate cut by 10 on each plateau of the
# validation accuracy, three times, and an end on the next; scale jitter of the training images.
tlkit fit "$photos" --backbone vgg_small --attach last --augment vgg --jitter 36,72 \
    --optimizer sgd --momentum 0.9 --weight-decay 5e-4 --lr 0.01 --clip 5 \
    --schedule plateau --cuts 3 --plateau-epochs 3 --monitor accuracy --batch 64 --epochs 74 \
    --out runs/vgg-paper "$@"
