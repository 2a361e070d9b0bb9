# Functions for the scripts that install and build. Source this file.
#
#   need PACKAGE ...      installs and names the Debian packages whose contents are missing; silent if none is missing
#   need_conan FOLDER     installs Conan into a virtual environment in the folder, from PyPI, unless it is there or on PATH
#   need_writable FOLDER  fails with one sentence if the folder cannot be written

# True if the contents of a Debian package are present, however they were installed.
has() {
  case $1 in
    ninja-build) command -v ninja ;;
    chromium-driver) command -v chromedriver ;;
    python3-venv) python3 -c 'import ensurepip, venv' ;;
    python3-dev) python3 -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ;;
    python3-selenium) /usr/bin/python3 -c 'import selenium' ;;
    openmpi-bin) command -v mpirun ;;
    libopenmpi-dev) command -v mpicxx ;;
    libfmt-dev) has_header fmt/format.h ;;
    nlohmann-json3-dev) has_header nlohmann/json.hpp ;;
    libcli11-dev) has_header CLI/CLI.hpp ;;
    libamdhip64-dev) has_header hip/hip_runtime_api.h ;;
    libasio-dev) has_header asio.hpp ;;
    doctest-dev) has_header doctest/doctest.h ;;
    libvalijson-dev) has_header valijson/validator.hpp ;;
    libbenchmark-dev) has_header benchmark/benchmark.h ;;
    libclang-rt-19-dev) links clang++-19 -fsanitize=address,undefined && links clang++-19 -fsanitize=fuzzer-no-link ;;
    libc++-19-dev) links clang++-19 -stdlib=libc++ -include version ;;
    libc++abi-19-dev) links clang++-19 -stdlib=libc++ ;;
    *) command -v "$1" ;;  # the package is called like its program
  esac >/dev/null 2>&1
}
has_header() { printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$1" | g++ -E -x c++ -; }
links() { echo 'int main() {}' | "$@" -x c++ - -o /dev/null; }

need() {
  local missing=() package
  for package in "$@"; do
    has "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if ! command -v apt-get >/dev/null; then
    echo "needed, and not found: what Debian has in its packages ${missing[*]}" >&2
    return 1
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "needed, and not found; ask an administrator to run: apt-get install ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update &&
         "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
       >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    echo "these packages could not be installed; ask an administrator to run: apt-get install ${missing[*]}" >&2
    return 1
  fi
  rm -f "$log"
}

need_conan() {
  if command -v conan >/dev/null || [ -x "$1/bin/conan" ]; then return 0; fi
  need python3 python3-venv || return 1
  echo "installing conan"
  local log
  log=$(mktemp)
  if ! { python3 -m venv "$1" && "$1/bin/pip" install --no-compile conan==2.34.0; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -rf "$log" "$1"
    echo "conan could not be installed from PyPI" >&2
    return 1
  fi
  rm -f "$log"
}

need_writable() {
  mkdir -p "$1" 2>/dev/null && { : >"$1/.writable"; } 2>/dev/null && rm -f "$1/.writable" && return 0
  echo "$1 cannot be written to; copy the sources to a folder of your own and run the script there" >&2
  return 1
}
