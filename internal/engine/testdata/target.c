// SPDX-License-Identifier: Apache-2.0
/*
 * A program without any library, for tests to set probes in. It calls work() and passes the
 * probe kaon:tick as often as its first argument says (a digit), the probe only while its semaphore is set.
 * If the argument is "s", it serves: as often as each digit says that it reads, which it writes back when that is done.
 * If it is "l", it does so once every 20 ms.
 */
__attribute__((section(".probes"), used)) volatile unsigned short kaon_tick_semaphore = 0;

__attribute__((noinline)) int work(int n)
{
	asm volatile("" : "+r"(n));
	return n + 1;
}

__attribute__((noinline)) int work_more(int n)
{
	asm volatile("" : "+r"(n));
	return n + 2;
}

static inline void probe(int a, long *b)
{
	if (!kaon_tick_semaphore)
		return;
	asm volatile("990: nop\n"
		".pushsection .note.stapsdt,\"\",\"note\"\n"
		".balign 4\n"
		".4byte 992f-991f, 994f-993f, 3\n"
		"991: .asciz \"stapsdt\"\n"
		"992: .balign 4\n"
		"993: .8byte 990b\n"
		".8byte 0\n"
		".8byte kaon_tick_semaphore\n"
		".asciz \"kaon\"\n"
		".asciz \"tick\"\n"
		".asciz \"-4@%0 8@%1 4@$77\"\n"
		"994: .balign 4\n"
		".popsection\n" : : "r"(a), "m"(*b));
}

static inline long call(long number, long a, long b, long c)
{
	asm volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return number;
}

__attribute__((noinline)) static void repeat(int n)
{
	for (int i = 0; i < n; i++) {
		long b = 0x1122334455667788;
		work(i);
		work_more(i);
		probe(-5 - i, &b);
	}
}

__attribute__((used)) static void run(long *stack)
{
	char digit = '1';
	long pause[2] = {0, 20000000};

	if (stack[0] > 1)
		digit = *(char *)stack[2];
	if (digit == 's')
		while (call(0, 0, (long)&digit, 1) == 1) {
			repeat(digit - '0');
			call(1, 1, (long)&digit, 1);
		}
	else if (digit == 'l')
		for (;;) {
			repeat(1);
			call(35, (long)pause, 0, 0);
		}
	else
		repeat(digit - '0');
	call(60, 0, 0, 0);
}

__attribute__((naked)) void _start(void)
{
	asm volatile("mov %rsp, %rdi\nand $-16, %rsp\ncall run\n");
}
