// SPDX-License-Identifier: MIT
#pragma once

// Errors of MPI.

#include <mpi.h>

#include <array>
#include <cstddef>
#include <stdexcept>
#include <string>

#include "pipesched/support/concat.hpp"

namespace pipesched {

/// A call of MPI that failed on this rank.
struct mpi_error : std::runtime_error {
  mpi_error(int status, const std::string& text) : std::runtime_error(text), code(status) {}
  int code;  ///< the status that the call returned
};

namespace detail {

inline std::string mpi_error_text(int status) {
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(status, text.data(), &length);
  return {text.data(), static_cast<std::size_t>(length)};
}
/// @throws mpi_error unless the call succeeded
inline void require_mpi(int status, const char* call) {
  if (status != MPI_SUCCESS) throw mpi_error(status, concat({call, ": ", mpi_error_text(status)}));
}

}  // namespace detail

}  // namespace pipesched
