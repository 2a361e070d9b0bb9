# Finds CUDA (nvcc on PATH or under /usr/local/cuda) and NCCL (in the toolkit or the system). Sets pipesched_has_cuda and defines
# pipesched_cuda, for execute/cuda.hpp, and pipesched_nccl. Compiling needs no GPU.
#
#   PIPESCHED_CUDA                 ON, or OFF to leave it out
#   PIPESCHED_CUDA_ARCHITECTURES   90; all-major for every current one
option(PIPESCHED_CUDA "Build what needs CUDA, where a toolkit is found" ON)
set(PIPESCHED_CUDA_ARCHITECTURES 90 CACHE STRING "Architectures of our own kernels, as CMAKE_CUDA_ARCHITECTURES has them")
set(pipesched_has_cuda FALSE)
if(NOT PIPESCHED_CUDA)
  return()
endif()
find_program(PIPESCHED_NVCC nvcc HINTS /usr/local/cuda/bin ENV CUDA_PATH PATH_SUFFIXES bin)
if(NOT PIPESCHED_NVCC)
  message(STATUS "skipped: all that needs CUDA (no nvcc on PATH or under /usr/local/cuda)")
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

find_path(PIPESCHED_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(PIPESCHED_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_TARGET_DIR}/lib)
if(PIPESCHED_NCCL_INCLUDE AND PIPESCHED_NCCL_LIBRARY)
  add_library(pipesched_nccl INTERFACE)
  target_link_libraries(pipesched_nccl INTERFACE pipesched_cuda ${PIPESCHED_NCCL_LIBRARY})
  target_include_directories(pipesched_nccl SYSTEM INTERFACE ${PIPESCHED_NCCL_INCLUDE})
else()
  message(STATUS "skipped: all that needs NCCL (no nccl.h and libnccl with the toolkit, or libnccl-dev)")
endif()
