# Toolchain file: skein for aarch64 from another machine, tests run by qemu-user. deploy/aarch64 fills the
# folder SKEIN_SYSROOT with Debian's packages and says how it is used.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SKEIN_SYSROOT)
set(CMAKE_SYSROOT ${SKEIN_SYSROOT})
set(CMAKE_FIND_ROOT_PATH ${SKEIN_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(libraries ${SKEIN_SYSROOT}/usr/lib/aarch64-linux-gnu)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${SKEIN_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${libraries}/pkgconfig:${libraries}/openblas-pthread/pkgconfig)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L ${SKEIN_SYSROOT} -E
  LD_LIBRARY_PATH=${libraries}/openblas-pthread:${libraries}:/lib/aarch64-linux-gnu)
