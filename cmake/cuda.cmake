# CUDA, where there is a toolkit (nvcc on PATH or under /usr/local/cuda): pipesched_has_cuda, and what pipesched_cuda needs; and
# what pipesched_nccl needs, where NCCL is with the toolkit or the system. No GPU is needed to compile.
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

target_compile_options(pipesched_cuda INTERFACE $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>>)  # CMake 3.25 knows no CUDA20 of nvcc 13
find_package(NCCL MODULE)
if(NOT TARGET NCCL::nccl)
  if(NCCL_ROOT)
    message(FATAL_ERROR "NCCL_ROOT=${NCCL_ROOT} has no include/nccl.h, or no lib/libnccl.so or lib/libnccl.so.2")
  endif()
  message(STATUS "skipped: what needs NCCL (no nccl.h and libnccl with the toolkit, or libnccl-dev; or give NCCL_ROOT)")
endif()
