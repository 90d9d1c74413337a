# XSAVE, XRSTOR, XSAVEOPT, XSAVEC: areas, headers and faults (SDM Vol. 1 13.4 to 13.10; Vol. 2C).

#include "kernel.inc"

#define AREA scratch
#define HEADER (AREA + 512)

	.code64
	.globl main
main:
	mov $AREA, %ebx
	FAULTS "XSAVE without CR4.OSXSAVE", UD, NONE, xsave (%rbx)
	FAULTS "XRSTOR without CR4.OSXSAVE", UD, NONE, xrstor (%rbx)
	OR_CR cr4, CR4_OSXSAVE
	xor %ecx, %ecx
	mov $3, %eax
	xor %edx, %edx
	xsetbv
	# CPUID 0DH: sizes
	mov $0xd, %eax
	xor %ecx, %ecx
	cpuid
	CHECK "CPUID 0DH.0 EBX: size of what XCR0 enables", %rbx, $576
	and $3, %eax
	CHECK "CPUID 0DH.0 EAX: x87 and SSE", %rax, $3
	mov $AREA, %ebx

	# XSAVE of both components
	fninit
	fld1
	mov $0x1122334455667788, %rax
	movq %rax, %xmm3
	mov $AREA, %edi
	mov $0xff, %eax
	mov $1024, %ecx
	rep stosb
	movq $0, HEADER
	mov $3, %eax
	xor %edx, %edx
	RUNS "XSAVE", xsave (%rbx)
	CHECK "XSTATE_BV", HEADER, $3
	CHECK "XMM3 in the area", AREA+208, $0x1122334455667788
	CHECK "ST(0) in the area", AREA + 32, $0x8000000000000000
	CHECK "XCOMP_BV is not touched", HEADER + 8, $-1
	mov AREA + 24, %eax
	CHECK "MXCSR in the area", %rax, $0x1f80
	# Only what EDX:EAX asks for; XSTATE_BV keeps its other bits
	movq $0, HEADER
	movq $0, AREA+208
	mov $1, %eax
	xsave (%rbx)
	CHECK "XSTATE_BV of x87 alone", HEADER, $1
	CHECK "XMM3 was not asked for", AREA+208, $0
	movq $1, HEADER
	mov $2, %eax
	xsave (%rbx)
	CHECK "XSTATE_BV keeps what was not asked for", HEADER, $3
	# XRSTOR
	movq $0, HEADER + 8
	mov $HEADER + 16, %edi
	xor %eax, %eax
	mov $48, %ecx
	rep stosb
	pxor %xmm3, %xmm3
	fninit
	mov $3, %eax
	xor %edx, %edx
	RUNS "XRSTOR", xrstor (%rbx)
	movq %xmm3, %rcx
	CHECK "XMM3 is back", %rcx, $0x1122334455667788
	fstpl scratch + 2048
	CHECK "ST(0) is back", scratch + 2048, $0x3ff0000000000000
	# A component whose bit in XSTATE_BV is clear gets its initial state
	movq $1, HEADER
	mov $3, %eax
	xrstor (%rbx)
	movq %xmm3, %rcx
	CHECK "XMM3 in its initial state", %rcx, $0
	movq $2, HEADER
	movq $0x55, AREA+208
	fld1
	mov $3, %eax
	xrstor (%rbx)
	fnstsw %ax
	movzwl %ax, %eax
	CHECK "x87 in its initial state", %rax, $0
	fnstcw scratch + 2048
	mov scratch + 2048, %rcx
	movzwl %cx, %ecx
	CHECK "initial control word", %rcx, $0x37f
	movq %xmm3, %rcx
	CHECK "SSE state from the area", %rcx, $0x55
	# What EDX:EAX does not name is left alone
	movq $0, HEADER
	mov $1, %eax
	xrstor (%rbx)
	movq %xmm3, %rcx
	CHECK "SSE was not named", %rcx, $0x55
	# Faults
	mov $3, %eax
	xor %edx, %edx
	FAULTS "XSAVE at 8", GP, 0, xsave 8(%rbx)
	FAULTS "XSAVE at 16", GP, 0, xsave 16(%rbx)
	FAULTS "XRSTOR at 32", GP, 0, xrstor 32(%rbx)
	movq $4, HEADER
	FAULTS "XSTATE_BV beyond XCR0", GP, 0, xrstor (%rbx)
	movq $3, HEADER
	movq $1, HEADER + 8
	FAULTS "XCOMP_BV without bit 63", GP, 0, xrstor (%rbx)
	movq $0, HEADER + 8
	movq $1, HEADER + 16
	FAULTS "reserved bytes of the header", GP, 0, xrstor (%rbx)
	movq $0, HEADER + 16
	movl $0x10000, AREA + 24
	FAULTS "reserved bits of MXCSR", GP, 0, xrstor (%rbx)
	movl $0x1f80, AREA + 24
	RUNS "XRSTOR again", xrstor (%rbx)
	FAULTS "XSAVE to a page that is not present", PF, 2, xsave TEST
	FAULTS "XRSTOR from a page that is not present", PF, 0, xrstor TEST
	OR_CR cr0, CR0_TS
	FAULTS "XSAVE with TS", NM, NONE, xsave (%rbx)
	FAULTS "XRSTOR with TS", NM, NONE, xrstor (%rbx)
	clts
	FAULTS "LOCK XSAVE", UD, NONE, .byte 0xf0, 0x0f, 0xae, 0x23

	# XSAVEC: compacted (13.10)
	mov $0xd, %eax
	mov $1, %ecx
	cpuid
	mov $AREA, %ebx
	test $2, %eax
	jz 1f
	mov $0x66, %eax
	movq %rax, %xmm3
	fninit
	fld1
	movq $-1, HEADER
	movq $-1, HEADER + 8
	movq $-1, HEADER + 16
	mov $3, %eax
	xor %edx, %edx
	RUNS "XSAVEC", xsavec (%rbx)
	CHECK "XSTATE_BV of XSAVEC", HEADER, $3
	mov $0x8000000000000003, %rcx
	CHECK "XCOMP_BV of XSAVEC", HEADER + 8, %rcx
	movq $0, HEADER + 16
	pxor %xmm3, %xmm3
	mov $3, %eax
	RUNS "XRSTOR of a compacted area", xrstor (%rbx)
	movq %xmm3, %rcx
	CHECK "XMM3 from a compacted area", %rcx, $0x66
1:
	# XSAVEOPT
	mov $0xd, %eax
	mov $1, %ecx
	cpuid
	mov $AREA, %ebx
	test $1, %eax
	jz 1f
	fld1
	movq $0, HEADER
	movq $0, HEADER + 8
	mov $3, %eax
	xor %edx, %edx
	RUNS "XSAVEOPT", xsaveopt (%rbx)
	CHECK "XSTATE_BV of XSAVEOPT", HEADER, $3
1:
	# XGETBV(1): components in use
	mov $0xd, %eax
	mov $1, %ecx
	cpuid
	test $4, %eax
	jz 1f
	fninit
	fld1
	mov $1, %ecx
	xgetbv
	and $1, %eax
	CHECK "XINUSE of x87", %rax, $1
1:	# FXSAVE and FXRSTOR beside it: bytes 464 to 511 are not touched
	fninit
	mov $AREA, %ebx
	mov $AREA, %edi
	mov $0x5a, %eax
	mov $512, %ecx
	rep stosb
	fxsave (%rbx)
	CHECK "FXSAVE leaves the last 48 bytes", AREA + 464, $0x5a5a5a5a5a5a5a5a
	mov AREA + 28, %eax
	CHECK "MXCSR_MASK", %rax, $0xffff
	movzbl AREA + 4, %eax
	CHECK "abridged tag word of an empty stack", %rax, $0
	CLEAR_CR cr4, CR4_OSXSAVE
	ret
