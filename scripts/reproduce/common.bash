# What the scripts that reproduce a study share; to be sourced.
#
# The script that sources this sets `system` and the defaults of `scale`, `data_dir`,
# `out`, `seeds` and `only`, and calls parse, then train_all, then table and draw.
# The comment at its head is its help text.

python=${PYTHON:-python}
failed=()

usage() { # the comment at the head of the script
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
}

parse() { # ARGUMENT...: set scale, data_dir, out, seeds and only
  while (($#)); do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --scale | --data-dir | --out | --seeds | --only)
        (($# > 1)) || { echo "error: $1: got no value" >&2; exit 2; } ;;&
      --scale) scale=$2; shift 2 ;;
      --data-dir) data_dir=$2; shift 2 ;;
      --out) out=$2; shift 2 ;;
      --seeds) seeds=$2; shift 2 ;;
      --only) only=$2; shift 2 ;;
      *) echo "error: option: got '$1', expected one that --help lists" >&2; exit 2 ;;
    esac
  done
  case $scale in
    smoke | small | paper) ;;
    *) echo "error: --scale: got '$scale', expected smoke, small or paper" >&2; exit 2 ;;
  esac
}

train() { # NAME ARGUMENT...: what fails is told of; the others go on
  local name=$1 status=0
  shift
  "$python" -m scripts.train "$@" || status=$?
  ((status != 130)) || exit 130
  ((status == 0)) || failed+=("$name")
}

train_one() { # NAME SCALE SEEDS: train what is not finished, resume what was begun
  local name=$1 begun run options
  # shellcheck disable=SC2053  # a pattern is wanted on the right
  [[ $name == $only ]] || return 0
  mkdir -p "$out"
  begun=$(find "$out" -path "*/$name/*/config.json" -not -path '*/members/*' | sort | tail -n 1)
  run=${begun%/config.json}
  if [[ -n $run && -e $run/summary.json ]]; then
    echo "$name: finished, $run"
  elif [[ -n $run ]]; then
    train "$name" --resume "$run"
  else
    options=(--scale "$2" --out "$out" --seeds "$3")
    [[ -z $data_dir ]] || options+=(--data-dir "$data_dir")
    train "$name" "$system" "$name" "${options[@]}"
  fi
}

table() { # write the table of all runs
  [[ -d $out/$system ]] || { echo "error: nothing was trained" >&2; exit 1; }
  "$python" -m scripts.report "$out" | tee "$out/table.md"
}

draw() { # FOLDER PATTERN FIGURE...: figures of the experiments that match
  local folder=$1 pattern=$2 runs=() path
  shift 2
  for path in "$out/$system"/*/*/; do
    # shellcheck disable=SC2053
    [[ $(basename "$(dirname "$path")") == $pattern ]] && runs+=("$path")
  done
  ((${#runs[@]})) || { echo "$folder: no runs"; return 0; }
  "$python" -m scripts.plot "${runs[@]}" --figure "$@" --out "$out/figures/$folder" ||
    echo "$folder: nothing drawn"
}

finish() { # say where things are, and what failed
  echo "table: $out/table.md"
  echo "figures: $out/figures"
  ((${#failed[@]} == 0)) || { echo "failed: ${failed[*]}" >&2; exit 1; }
}
