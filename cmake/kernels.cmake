# Flags by file suffix: <op>.<isa>.cpp. Nothing is chosen at compile time; the flags only let the intrinsics through.
# -fno-exceptions keeps weak personality symbols out of the objects; the warnings are GCC 12's own (bug 105593, _mm512_undefined).
set(STATERA_ISA_FLAGS_scalar "")
set(STATERA_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(STATERA_ISA_FLAGS_avx512 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512vbmi)
set(STATERA_ISA_FLAGS_amx -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512vbmi -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16)

function(statera_kernel_flags)
  foreach(source ${ARGN})
    if(source MATCHES "\\.(avx2|avx512|amx)\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${STATERA_ISA_FLAGS_${CMAKE_MATCH_1}}")
    endif()
    if(source MATCHES "\\.(scalar|avx2|avx512|amx)\\.cpp$")
      set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS -O3 -fno-math-errno -ffp-contract=off -fno-exceptions -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
  endforeach()
endfunction()
