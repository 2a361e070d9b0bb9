# CUDA, where there is a toolkit (nvcc on PATH or under /usr/local/cuda): pipesched_has_cuda, and pipesched_cuda, which has what
# execute/cuda.hpp needs; and pipesched_nccl, where NCCL is with the toolkit or the system. No GPU is needed to compile.
#
#   PIPESCHED_CUDA                 ON, or OFF to leave it out
#   PIPESCHED_CUDA_ARCHITECTURES   90; all-major for every current one
#   NCCL_ROOT                      a folder with include/nccl.h and lib/libnccl.so or libnccl.so.2, and no other NCCL is used
option(PIPESCHED_CUDA "Build what needs CUDA, where a toolkit is found" ON)
set(PIPESCHED_CUDA_ARCHITECTURES 90 CACHE STRING "Architectures of our own kernels, as CMAKE_CUDA_ARCHITECTURES has them")
set(pipesched_has_cuda FALSE)
if(NOT PIPESCHED_CUDA)
  return()
endif()
find_program(PIPESCHED_NVCC nvcc HINTS /usr/local/cuda/bin ENV CUDA_PATH PATH_SUFFIXES bin)
if(NOT PIPESCHED_NVCC)
  message(STATUS "skipped: what needs CUDA (no nvcc on PATH or under /usr/local/cuda)")
  return()
endif()
set(CMAKE_CUDA_COMPILER ${PIPESCHED_NVCC} CACHE FILEPATH "")
set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER} CACHE FILEPATH "")
set(CMAKE_CUDA_ARCHITECTURES ${PIPESCHED_CUDA_ARCHITECTURES})
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(pipesched_has_cuda TRUE)

add_library(pipesched_cuda INTERFACE)
target_link_libraries(pipesched_cuda INTERFACE pipesched_core CUDA::cudart)
target_compile_options(pipesched_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)  # CMake 3.25 knows no CUDA20 of nvcc 13

# As a package of Python (nvidia-nccl-cu13) it has libnccl.so.2 alone.
if(NOT "${NCCL_ROOT}" STREQUAL "${PIPESCHED_NCCL_ROOT}")
  unset(PIPESCHED_NCCL_INCLUDE CACHE)
  unset(PIPESCHED_NCCL_LIBRARY CACHE)
endif()
set(PIPESCHED_NCCL_ROOT "${NCCL_ROOT}" CACHE INTERNAL "the NCCL_ROOT that was searched")
if(NCCL_ROOT)
  find_path(PIPESCHED_NCCL_INCLUDE nccl.h PATHS ${NCCL_ROOT} PATH_SUFFIXES include NO_DEFAULT_PATH)
  find_library(PIPESCHED_NCCL_LIBRARY NAMES nccl libnccl.so.2 PATHS ${NCCL_ROOT} PATH_SUFFIXES lib lib64 NO_DEFAULT_PATH)
  if(NOT PIPESCHED_NCCL_INCLUDE OR NOT PIPESCHED_NCCL_LIBRARY)
    message(FATAL_ERROR "NCCL_ROOT=${NCCL_ROOT} has no include/nccl.h, or no lib/libnccl.so or lib/libnccl.so.2")
  endif()
else()
  find_path(PIPESCHED_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(PIPESCHED_NCCL_LIBRARY NAMES nccl libnccl.so.2
               HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_TARGET_DIR}/lib)
endif()
if(PIPESCHED_NCCL_INCLUDE AND PIPESCHED_NCCL_LIBRARY)
  add_library(pipesched_nccl INTERFACE)
  target_link_libraries(pipesched_nccl INTERFACE pipesched_cuda ${PIPESCHED_NCCL_LIBRARY})
  target_include_directories(pipesched_nccl SYSTEM INTERFACE ${PIPESCHED_NCCL_INCLUDE})
else()
  message(STATUS "skipped: what needs NCCL (no nccl.h and libnccl with the toolkit, or libnccl-dev; or give NCCL_ROOT)")
endif()
