/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Error numbers for programs, which can't include the system's headers together with vmlinux.h. */
#ifndef KAON_LINUX_ERRNO_H
#define KAON_LINUX_ERRNO_H

#define EPERM 1
#define ENOENT 2
#define ESRCH 3
#define EINTR 4
#define EIO 5
#define E2BIG 7
#define EBADF 9
#define EAGAIN 11
#define ENOMEM 12
#define EACCES 13
#define EFAULT 14
#define EBUSY 16
#define EEXIST 17
#define ENODEV 19
#define EINVAL 22
#define ENOSPC 28
#define EPIPE 32
#define ERANGE 34

#endif /* KAON_LINUX_ERRNO_H */
