# Tests of every README.md of the tree.
#
#   ```cpp     a whole program: it compiles, where there is MPI if it includes mpi/; where a ```text block follows directly, that is
#              what it prints
#   ```cuda    a whole source file: it compiles where there is a CUDA toolkit (tests/cuda)
#   ```text    that begins with "$ ": a session in a shell: each line after "$ " is a command, the lines below it are its output, in
#              which "..." alone on a line stands for any lines. All sessions of a README share one empty folder, in which include/
#              and examples/ are those of the tree and `pipesched` is the tool
#   ```json    directly after a line that ends with `name.json`: that file of the sessions
#   ```python  compiles, where there is Python
#   [text](path#heading), src="path": the path, relative to the README, and the heading exist
#
# Blocks of other languages, such as ```sh and ```cmake, are not run.
include(${PROJECT_SOURCE_DIR}/cmake/readme_blocks.cmake)
readme_blocks(cpp cpp blocks)
foreach(block IN LISTS blocks)
  cmake_path(GET block STEM name)
  file(STRINGS ${block} mpi REGEX "pipesched/mpi/")
  if(mpi AND NOT MPI_CXX_FOUND)
    continue()
  endif()
  add_executable(readme_${name} ${block})
  target_link_libraries(readme_${name} PRIVATE pipesched_dev pipesched_launch)
  if(mpi)
    target_link_libraries(readme_${name} PRIVATE pipesched_mpi)
    target_compile_definitions(readme_${name} PRIVATE OMPI_SKIP_MPICXX)
  endif()
  target_compile_options(readme_${name} PRIVATE -O0)
  if(EXISTS ${block}.expected)
    add_test(NAME readme_${name} COMMAND bash -c "diff ${block}.expected <($<TARGET_FILE:readme_${name}>)")
  endif()
endforeach()
if(NOT TEST readme_block_1)
  message(FATAL_ERROR "README.md: no output beside a program")  # there is one: this file no longer reads it right
endif()

foreach(readme IN LISTS readmes)
  readme_suffix(${readme} suffix)
  add_test(NAME readme_links${suffix} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/readme/links.sh ${readme})
  if(PIPESCHED_EXAMPLES)
    add_test(NAME readme_sessions${suffix} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/readme/sessions.sh ${readme} $<TARGET_FILE:pipesched_tool>
                                                   ${PROJECT_SOURCE_DIR})
  endif()
endforeach()
