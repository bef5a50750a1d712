# One ctest entry for each test suite of a GoogleTest program: its cases share a process, because starting a program
# with sanitizers costs more than most cases do. Run after linking: cmake -D EXE=program -D OUT=file -P this.
execute_process(COMMAND ${EXE} --gtest_list_tests OUTPUT_VARIABLE listed RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${EXE} cannot list its tests: ${status}")
endif()
string(REGEX MATCHALL "(^|\n)[^ \n][^ \n]*\\.[^\n]*" lines "${listed}")
set(entries "")
foreach(line ${lines})
  string(REGEX REPLACE "^\n?([^ ]*)\\..*" "\\1" suite "${line}")
  string(APPEND entries "add_test([=[${suite}]=] \"${EXE}\" [=[--gtest_filter=${suite}.*]=])\n"
    "set_tests_properties([=[${suite}]=] PROPERTIES TIMEOUT 600)\n")
endforeach()
file(WRITE ${OUT} "${entries}")
