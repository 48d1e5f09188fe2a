#!/usr/bin/env bash
# The runs of docs/noisy_cifar10/README.md, by stage:
#
#   scripts/noisy_cifar10.sh STAGE DIR [VARIANTS]
#
# tune_cnn, tune_cnn_more, tune_clean, tune_m, tune_m_cnn, tune_vit, tune_vit_decay
# and tune_resnet choose settings and read no test image; report_... of the same
# names trains the choices with fresh seeds and tests them. Each goes on where it was
# stopped. The stages of cnn, clean, vit and vit_decay take variants by name, so that
# several processes can share them; cnn_more has other methods for cnn.
set -euo pipefail
stage=$1 dir=$2
case $stage in
  *_vit*) variants=plain,random,sam,obf,obf_gamma0 ;;
  *_clean) variants=plain,random,sam,obf_gamma0 ;;
  *_more) variants=gsam,gsam_obf,asam,asam_obf,friendly_sam,momentum ;;
  *) variants=plain,more_decay,augmented,label_smoothing,random,sam,obf,obf_gamma0 ;;
esac
variants=${3:-$variants}
cd "$(dirname "$0")/.."
RADII='perturbation.rho'
net=(--config.model.name=resnet18_cifar --config.model.width=16
  '--config.model.stage_sizes=(1,1,1)' --config.model.batch_norm=None) # ResNet-8

# tune FOLDER SEEDS VARIANT GRID [--config.key=value ...]: CONFIG is the file
tune() {
  python main.py --job=sweep --config="$CONFIG" --workdir="$dir/tune/$1" \
    --seeds="$2" --variants="$3" --grid="$4" "${@:5}"
}

# grid VARIANT: ten settings of the CNN, at a learning rate of 0.1 or around it
grid() {
  local decay='optimizer.weight_decay=5e-4,5e-3'
  case $1 in
    plain | augmented) echo "optimizer.learning_rate=0.05,0.1,0.2,0.3,0.4;$decay" ;;
    more_decay) echo 'optimizer.learning_rate=0.1,0.2;optimizer.weight_decay=0.01,0.02,0.05,0.1,0.2' ;;
    label_smoothing) echo "loss.label_smoothing=0.1,0.2,0.3,0.5,0.7;$decay" ;;
    random) echo "$RADII=1,2,4,8,16;$decay" ;;
    asam*) echo "$RADII=1,1.5,2,3,4;$decay" ;;
    momentum) echo "$RADII=0.1,0.2,0.4,0.8,1.6;$decay" ;;
    *) echo "$RADII=0.2,0.3,0.4,0.5,0.7;$decay" ;;
  esac
}

# Seed after seed, so that all methods have the same number at any time.
tune_cnn() {
  local CONFIG=configs/noisy_cifar10.py n v
  for n in 1 2; do
    for v in ${variants//,/ }; do
      tune "${1:-cnn}" $n $v "$(grid $v)"
    done
  done
}

tune_cnn_more() {
  tune_cnn cnn_more
}

clean=--config.data.label_noise=0

# Half of the settings at the learning rate that plain training chose in tune_cnn.
tune_clean() {
  local CONFIG=configs/noisy_cifar10.py n v own rates='optimizer.learning_rate=0.025,0.1'
  for n in 1 2; do
    for v in ${variants//,/ }; do
      case $v in
        plain) own='optimizer.weight_decay=5e-4,5e-3,0.05,0.2' ;;
        random) own="$RADII=4,8,16,32" ;;
        *) own="$RADII=0.1,0.2,0.4,0.8" ;;
      esac
      tune clean $n $v "$own;$rates" $clean
    done
  done
}

tune_m() {
  local CONFIG=configs/fashion_mnist_2k.py m
  local rest=(--config.data.label_noise=0.2 --config.m_sharpness=factored)
  local decay='optimizer.weight_decay=0,0.05'
  tune m/plain 3 plain \
    'optimizer.learning_rate=0.02,0.05,0.1,0.2;optimizer.weight_decay=0,0.1,0.2' \
    --config.data.label_noise=0.2
  for m in 128 64 32 16 8 4 2 1; do
    rest[2]=--config.micro_batch_size=$m
    tune m/$m/sam 3 sam "$RADII=0.025,0.05,0.1,0.2,0.4,0.8;$decay" "${rest[@]}"
    for gamma in 0 1; do
      tune m/$m/gamma$gamma 3 obf "$RADII=0.05,0.1,0.2,0.4,0.6,0.8;$decay" \
        "${rest[@]}" --config.ascent.gamma=$gamma
    done
  done
}

tune_m_cnn() {
  local CONFIG=configs/noisy_cifar10.py m n v decay='optimizer.weight_decay=5e-4,5e-3'
  for n in 1 2; do
    for m in 64 32 16 8 128; do
      tune m_cnn/$m $n plain "optimizer.learning_rate=0.05,0.1,0.2,0.3,0.4;$decay" \
        --config.micro_batch_size=$m
      for v in sam obf_gamma0; do
        tune m_cnn/$m $n $v "$RADII=0.1,0.2,0.3,0.4,0.6;$decay" \
          --config.micro_batch_size=$m
      done
    done
  done
}

tune_vit() {
  local CONFIG=configs/noisy_cifar10_vit.py n v rates='optimizer.learning_rate=5e-4,2e-3'
  for n in 1 2; do
    for v in ${variants//,/ }; do
      case $v in
        plain) tune vit $n $v 'optimizer.learning_rate=2.5e-4,5e-4,1e-3,2e-3;optimizer.weight_decay=0.05,0.5' ;;
        random) tune vit $n $v "$RADII=1,2,4,8;$rates" ;;
        *) tune vit $n $v "$RADII=0.1,0.2,0.4,0.8;$rates" ;;
      esac
    done
  done
}

tune_vit_decay() {
  local CONFIG=configs/noisy_cifar10_vit.py n v rate='optimizer.learning_rate=4e-3'
  local rest=(--config.optimizer.weight_decay=5)
  for n in 1 2; do
    for v in ${variants//,/ }; do
      case $v in
        plain) tune vit_decay $n $v 'optimizer.learning_rate=1e-3,2e-3,4e-3,8e-3' "${rest[@]}" ;;
        random) tune vit_decay $n $v "$RADII=1,2,4,8;$rate" "${rest[@]}" ;;
        *) tune vit_decay $n $v "$RADII=0.025,0.05,0.1,0.2;$rate" "${rest[@]}" ;;
      esac
    done
  done
}

tune_resnet() {
  local CONFIG=configs/noisy_cifar10.py n v decay='optimizer.weight_decay=5e-4,5e-3'
  for n in 1 2; do
    tune resnet $n plain "optimizer.learning_rate=0.05,0.1,0.2,0.4;$decay" "${net[@]}"
    for v in sam obf_gamma0; do
      tune resnet $n $v "$RADII=0.1,0.2,0.4,0.6;$decay" "${net[@]}"
    done
    tune resnet $n random "$RADII=1,2,4,8;$decay" "${net[@]}"
  done
}

# report FOLDER TUNED VARIANTS SEEDS: the choices of TUNED, with seeds from 5
report() {
  python main.py --job=sweep --config="$CONFIG" --workdir="$dir/report/$1" \
    --settings="$dir/tune/$2/best.json" --variants="$3" --seeds="$4" \
    --first_seed=5 "${@:5}"
}

# The sets that a reported arm is scored on; makes them if need be.
corrupted=$dir/corrupted.npz
make_corrupted() {
  [ -e "$corrupted" ] || python -m scripts.corrupted_cifar10 --out="$corrupted"
}

report_cnn() {
  local CONFIG=configs/noisy_cifar10.py n arm=${1:-cnn}
  make_corrupted
  for n in 5 10; do
    report $arm $arm $variants $n --keep_runs --config.evaluation.sets="$corrupted"
  done
}

# configured FOLDER [--config.key=value ...]: plain training at the learning rate
# of the perturbed methods
configured() {
  make_corrupted
  python main.py --job=sweep --config="$CONFIG" --workdir="$dir/report/$1" \
    --variants=plain --first_seed=5 --keep_runs \
    --config.evaluation.sets="$corrupted" "${@:2}"
}

report_cnn_configured() {
  local CONFIG=configs/noisy_cifar10.py
  configured cnn_configured --seeds=10
}

report_cnn_more() {
  report_cnn cnn_more
}

report_clean() {
  local CONFIG=configs/noisy_cifar10.py
  make_corrupted
  report clean clean $variants 8 --keep_runs --config.evaluation.sets="$corrupted" \
    $clean
}

report_clean_configured() {
  local CONFIG=configs/noisy_cifar10.py
  configured clean_configured --seeds=8 $clean
}

report_m() {
  local CONFIG=configs/fashion_mnist_2k.py m gamma
  local rest=(--config.data.label_noise=0.2)
  report m/plain m/plain plain 15 "${rest[@]}"
  rest+=(--config.m_sharpness=factored)
  for m in 128 64 32 16 8 4 2 1; do
    rest[2]=--config.micro_batch_size=$m
    report m/$m/sam m/$m/sam sam 15 "${rest[@]}"
    for gamma in 0 1; do
      report m/$m/gamma$gamma m/$m/gamma$gamma obf 15 "${rest[@]}" \
        --config.ascent.gamma=$gamma
    done
  done
}

report_m_cnn() {
  local CONFIG=configs/noisy_cifar10.py m
  for m in 64 32 16 8 128; do
    report m_cnn/$m m_cnn/$m plain,sam,obf_gamma0 8 --config.micro_batch_size=$m
  done
}

report_vit() {
  local CONFIG=configs/noisy_cifar10_vit.py
  make_corrupted
  report vit vit $variants 8 --keep_runs --config.evaluation.sets="$corrupted"
}

report_vit_configured() {
  local CONFIG=configs/noisy_cifar10_vit.py
  configured vit_configured --seeds=8
}

report_vit_decay() {
  local CONFIG=configs/noisy_cifar10_vit.py
  make_corrupted
  report vit_decay vit_decay $variants 8 --keep_runs \
    --config.evaluation.sets="$corrupted" --config.optimizer.weight_decay=5
}

report_resnet() {
  local CONFIG=configs/noisy_cifar10.py
  report resnet resnet plain,sam,obf_gamma0,random 8 --keep_runs "${net[@]}"
}

"$stage"
