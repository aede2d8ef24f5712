/*
 * fpu.c - the floating point and vector registers have known values while the program spins without a system call, and
 * must still have them after SIGTERM.
 *
 * usage: fpu DIRECTORY x87|sse|avx|avx512
 */
#include <string.h>

#include "live.h"

static volatile int *stop_flag;
static unsigned char in[32][64] __attribute__((aligned(64))), out[32][64] __attribute__((aligned(64)));

/* Each loads all registers, spins until the handler of SIGTERM sets the flag, and stores all registers. */
#define SPIN "1: pause\n\tcmpl $0, (%2)\n\tje 1b\n\t"

static void spin_sse(void)
{
	asm volatile(
		".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\tmovaps 64*\\n(%0), %%xmm\\n\n\t.endr\n\t" SPIN
		".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\tmovaps %%xmm\\n, 64*\\n(%1)\n\t.endr\n\t"
		:
		: "r"(in), "r"(out), "r"(stop_flag)
		: "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
		  "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

static void spin_avx(void)
{
	asm volatile(
		".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\tvmovaps 64*\\n(%0), %%ymm\\n\n\t.endr\n\t" SPIN
		".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\tvmovaps %%ymm\\n, 64*\\n(%1)\n\t.endr\n\t"
		"vzeroupper"
		:
		: "r"(in), "r"(out), "r"(stop_flag)
		: "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
		  "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

#define ALL_32 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"

static unsigned long mask_in[8], mask_out[8];

static void spin_avx512(void)
{
	asm volatile(".irp n,1,2,3,4,5,6,7\n\tkmovw 8*\\n(%3), %%k\\n\n\t.endr\n\t"
		     ".irp n," ALL_32 "\n\tvmovaps 64*\\n(%0), %%zmm\\n\n\t.endr\n\t" SPIN ".irp n," ALL_32
		     "\n\tvmovaps %%zmm\\n, 64*\\n(%1)\n\t.endr\n\t"
		     ".irp n,1,2,3,4,5,6,7\n\tkmovw %%k\\n, 8*\\n(%4)\n\t.endr\n\tvzeroupper"
		     :
		     : "r"(in), "r"(out), "r"(stop_flag), "r"(mask_in), "r"(mask_out)
		     : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
		       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

/* Eight numbers on the register stack, and unusual control words. */
static void spin_x87(void)
{
	unsigned short control = 0x0a7f, control_after = 0;
	unsigned mxcsr = 0x3f80, mxcsr_after = 0;
	long double numbers[8], results[8];

	for (int i = 0; i < 8; i++)
		numbers[i] = 3.25L * (i + 1) + 1e-15L;
	asm volatile(
		"fninit\n\tfldcw %3\n\tldmxcsr %5\n\t"
		".irp n,7,6,5,4,3,2,1,0\n\tfldt 16*\\n(%0)\n\t.endr\n\t" SPIN
		".irp n,0,1,2,3,4,5,6,7\n\tfstpt 16*\\n(%1)\n\t.endr\n\tfnstcw %4\n\tstmxcsr %6\n\tfninit"
		:
		: "r"(numbers), "r"(results), "r"(stop_flag), "m"(control), "m"(control_after), "m"(mxcsr),
		  "m"(mxcsr_after)
		: "memory", "cc");
	for (int i = 0; i < 8; i++)
		live_check(results[i] == numbers[i], "st(%d): %Lf is now %Lf", i, numbers[i], results[i]);
	live_check(*(volatile unsigned short *)&control_after == control, "control word 0x%x", control_after);
	live_check((*(volatile unsigned *)&mxcsr_after & ~0x3fu) == mxcsr, "mxcsr 0x%x", mxcsr_after);
	mxcsr = 0x1f80;
	asm volatile("ldmxcsr %0" : : "m"(mxcsr));
}

static void verify(int count, int size)
{
	for (int i = 0; i < count; i++)
		live_check(memcmp(in[i], out[i], size) == 0, "vector register %d (of %d bytes) changed", i,
			   size);
}

static void spin(const char *unit)
{
	if (strcmp(unit, "x87") == 0) {
		spin_x87();
	} else if (strcmp(unit, "sse") == 0) {
		spin_sse();
		verify(16, 16);
	} else if (strcmp(unit, "avx") == 0) {
		spin_avx();
		verify(16, 32);
	} else {
		spin_avx512();
		verify(32, 64);
		live_check(memcmp(mask_in, mask_out, sizeof(mask_in)) == 0, "a mask register changed");
	}
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	if (strcmp(argv[2], "avx") == 0 && !__builtin_cpu_supports("avx"))
		live_skip("this CPU has no AVX");
	if (strcmp(argv[2], "avx512") == 0 && !__builtin_cpu_supports("avx512f"))
		live_skip("this CPU has no AVX-512");
	live_fill(in, sizeof(in), 1);
	for (int i = 1; i < 8; i++)
		mask_in[i] = (0x1111 * i) & 0xffff;
	stop_flag = live_stop_flag();
	live_ready();
	spin(argv[2]);
	return live_finish();
}
