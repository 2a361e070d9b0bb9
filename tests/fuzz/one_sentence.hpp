// SPDX-License-Identifier: MIT
#pragma once

#include <cstdlib>
#include <cstring>
#include <exception>

// Aborts the fuzzer unless the error is one sentence of reasonable length.
inline int require_one_sentence(const std::exception& e) {
  const std::size_t length = std::strlen(e.what());
  if (length < 5 || length > 1000 || std::strchr(e.what(), '\n')) std::abort();
  return 0;
}

inline void require(bool holds) {
  if (!holds) std::abort();
}
