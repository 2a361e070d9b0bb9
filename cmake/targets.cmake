# Targets map to folders:
#   pipesched::core       all that needs the standard library alone
#   pipesched::pipesched  core, and io/: JSON (nlohmann_json) and formatting (fmt)
#   pipesched::mpi        core, and mpi/
#   pipesched::launch     core, and launch/tcp_coordinator.hpp: TCP (Asio)
#   pipesched::cuda       core, and device/cuda.hpp (device/hip.hpp is installed with it; link amdhip64)
#   pipesched::nccl       cuda, and device/nccl.hpp
# The last four name MPI::MPI_CXX, asio::asio, CUDA::cudart and NCCL::nccl; a project that links one of them finds these first.
file(GLOB_RECURSE core_headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/pipesched/*.hpp")
foreach(part_and_pattern IN ITEMS "io /io/" "mpi /mpi/" "launch /launch/(tcp_coordinator|detail/connection).hpp" "cuda /device/(cuda|hip).hpp" "nccl /device/nccl.hpp")
  string(REPLACE " " ";" part_and_pattern ${part_and_pattern})
  list(GET part_and_pattern 0 part)
  list(GET part_and_pattern 1 pattern)
  set(${part}_headers ${core_headers})
  list(FILTER ${part}_headers INCLUDE REGEX "/pipesched${pattern}")
  list(REMOVE_ITEM core_headers ${${part}_headers})
endforeach()

function(pipesched_library name headers)
  add_library(pipesched_${name} INTERFACE)
  add_library(pipesched::${name} ALIAS pipesched_${name})
  set_target_properties(pipesched_${name} PROPERTIES EXPORT_NAME ${name})
  target_sources(pipesched_${name} INTERFACE FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}/include"
                 FILES ${headers})
  target_compile_features(pipesched_${name} INTERFACE cxx_std_20)
endfunction()

find_package(Threads REQUIRED)
pipesched_library(core "${core_headers}")
target_link_libraries(pipesched_core INTERFACE Threads::Threads)
pipesched_library(mpi "${mpi_headers}")
target_link_libraries(pipesched_mpi INTERFACE pipesched_core MPI::MPI_CXX)
pipesched_library(launch "${launch_headers}")
target_link_libraries(pipesched_launch INTERFACE pipesched_core asio::asio)
pipesched_library(cuda "${cuda_headers}")
target_link_libraries(pipesched_cuda INTERFACE pipesched_core CUDA::cudart)
pipesched_library(nccl "${nccl_headers}")
target_link_libraries(pipesched_nccl INTERFACE pipesched_cuda NCCL::nccl)
set_target_properties(pipesched_core PROPERTIES VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL})
if(NOT PIPESCHED_IO)
  return()
endif()
pipesched_library(pipesched "${io_headers}")
target_link_libraries(pipesched_pipesched INTERFACE pipesched_core fmt::fmt nlohmann_json::nlohmann_json)
set_target_properties(pipesched_pipesched PROPERTIES VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL})

# Compile options of the project's own programs; they do not reach users.
add_library(pipesched_dev INTERFACE)
target_link_libraries(pipesched_dev INTERFACE pipesched_pipesched)
target_compile_options(pipesched_dev INTERFACE -Wall -Wextra -Wconversion -Wshadow -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(pipesched_dev INTERFACE -Wno-restrict)  # false on "text" + string: GCC bug 105329
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL Clang AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 15)
  target_compile_options(pipesched_dev INTERFACE -Wno-deprecated-declarations)  # std::stable_sort of libstdc++ 12
endif()

# Includes every header in two objects of one program, so that a non-inline function is a link error.
if(NOT PROJECT_IS_TOP_LEVEL)
  return()
endif()
set(every_header "")
foreach(header IN LISTS core_headers io_headers)
  cmake_path(RELATIVE_PATH header BASE_DIRECTORY "${PROJECT_SOURCE_DIR}/include")
  string(APPEND every_header "#include <${header}>\n")
endforeach()
file(CONFIGURE OUTPUT every_header.cpp CONTENT "${every_header}" @ONLY)
file(CONFIGURE OUTPUT every_header_again.cpp CONTENT "${every_header}int main() {}\n" @ONLY)
add_executable(pipesched_odr EXCLUDE_FROM_ALL ${PROJECT_BINARY_DIR}/every_header.cpp ${PROJECT_BINARY_DIR}/every_header_again.cpp)
target_link_libraries(pipesched_odr PRIVATE pipesched_dev)
target_compile_options(pipesched_odr PRIVATE -O0)
