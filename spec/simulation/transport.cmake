# What the virtual network has to know of the real transport: whether it may send a POST over a connection that was used
# before. cmake -DTRANSPORT=transfer.c -DHEADER=transport.h -P transport.cmake
file(READ "${TRANSPORT}" source)
set(reuses 0)
foreach(option IN ITEMS CURLOPT_FRESH_CONNECT CURLOPT_FORBID_REUSE)
  if(NOT source MATCHES "${option}, 1L")
    set(reuses 1)
  endif()
endforeach()
file(WRITE "${HEADER}" "#define TRANSPORT_REUSES ${reuses}\n")
