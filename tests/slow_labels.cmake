# cmake -DPROGRAM=... -DOUTPUT=... -P slow_labels.cmake: gives the label slow to the tests of a doctest program that are in its test
# suite "slow", in a file for CTest.
execute_process(COMMAND ${PROGRAM} --test-suite=slow --list-test-cases OUTPUT_VARIABLE listed COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE "(^|\n)(\\[doctest\\]|====)[^\n]*" "" names "${listed}")
string(STRIP "${names}" names)
string(REPLACE "\n" ";" names "${names}")
set(labels "")
foreach(name IN LISTS names)
  string(APPEND labels "set_tests_properties([==[${name}]==] PROPERTIES LABELS slow)\n")
endforeach()
file(WRITE ${OUTPUT} "${labels}")
