# SYSCALL and SYSRET, SYSENTER and SYSEXIT, SWAPGS, FS and GS bases (SDM Vol. 2B; Vol. 3A 5.8.7, 5.8.8).

#include "kernel.inc"

#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_FMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_SYSENTER_CS 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176

	.code64
	.globl main
main:
	# STAR: SYSCALL loads CS 08H and SS 10H, SYSRET CS 33H or 43H and SS 3BH
	SET_MSR MSR_STAR, 0x0033000800000000
	POINT_MSR MSR_LSTAR, (syscall_entry)
	SET_MSR MSR_FMASK, 0x700
	mov %rsp, saved_rsp
	ENTER_USER 0x3002
	mov $user_stack_top - 64, %esp
	xor %eax, %eax
	stc
	std
	syscall
after_syscall:
	pushfq
	pop %rbx
	mov %cs, %r8d
	mov %ss, %r9d
	mov %rsp, %r10
	cld
	LEAVE_USER
	CHECK "RCX of SYSCALL is the next RIP", seen_rcx, $after_syscall
	mov seen_r11, %rax
	CHECK "R11 of SYSCALL is RFLAGS", %rax, $(0x3000 | FL_DF | FL_CF | FL_ZF | 6)
	CHECK "flags inside: FMASK clears", seen_flags, $(0x3000 | FL_CF | FL_ZF | 6)
	CHECK "CS inside", seen_cs, $CODE64
	CHECK "SS inside", seen_ss, $DATA
	CHECK "RSP is kept by SYSCALL", seen_rsp, $user_stack_top-64
	CHECK "CS behind SYSRET", %r8, $USER_CODE64
	CHECK "SS behind SYSRET", %r9, $USER_DATA
	CHECK "RFLAGS behind SYSRET", %rbx, $(0x3000 | FL_DF | FL_CF | FL_ZF | 6)
	CHECK "RSP behind SYSRET", %r10, $user_stack_top-64
	# SYSCALL at CPL 0 stays there
	mov $1, %eax
	syscall
1:	CHECK "SYSCALL at CPL 0", seen_rcx, $1b
	# SYSRET to compatibility mode
	mov %rsp, user_return_rsp
	mov $2f, %ecx
	mov $0x3002, %r11d
	movabs $0x123400000000, %rax
	or %rax, %rcx
	sysretl
	.code32
2:	mov %cs, %ebx
	mov %ss, %edx
	.byte 0x47
	LEAVE_USER
	.code64
	CHECK "CS of SYSRET to compatibility mode", %rbx, $USER_CODE32
	CHECK "SS of SYSRET to compatibility mode", %rdx, $USER_DATA
	# Faults
	USER_FAULTS "SYSRET at CPL 3", GP, 0, sysretq
	mov $0x800000000000, %rcx
	FAULTS "SYSRETQ to an address that is not canonical", GP, 0, sysretq
	CHECK "it faulted at CPL 0", fault_cs, $CODE64
	mov $MSR_EFER, %ecx
	rdmsr
	and $~EFER_SCE, %eax
	wrmsr
	FAULTS "SYSCALL without IA32_EFER.SCE", UD, NONE, syscall
	FAULTS "SYSRET without IA32_EFER.SCE", UD, NONE, sysretq
	or $EFER_SCE, %eax
	mov $MSR_EFER, %ecx
	wrmsr
	# SYSRET takes RF and VM as zero, reserved bits as they must be
	mov %rsp, user_return_rsp
	mov $3f, %ecx
	mov $(FL_VM | FL_RF | 0x8028 | 0x3000), %r11d
	sysretq
3:	pushfq
	pop %rbx
	LEAVE_USER
	CHECK "reserved bits of R11", %rbx, $0x3002
	# LSTAR must be canonical
	mov $MSR_LSTAR, %ecx
	xor %eax, %eax
	mov $0x8000, %edx
	FAULTS "LSTAR that is not canonical", GP, 0, wrmsr

	# SYSENTER and SYSEXIT: CS from the MSR, the others by offsets of 8, 16, 24 (and 32, 40)
	SET_MSR MSR_SYSENTER_CS, 0
	FAULTS "SYSENTER with a null CS", GP, 0, sysenter
	FAULTS "SYSEXIT with a null CS", GP, 0, sysexitl
	DESCRIPTOR 0x80, 0x00af9b000000ffff
	DESCRIPTOR 0x88, 0x00cf93000000ffff
	DESCRIPTOR 0x90, 0x00cffb000000ffff
	DESCRIPTOR 0x98, 0x00cff3000000ffff
	DESCRIPTOR 0xa0, 0x00affb000000ffff
	DESCRIPTOR 0xa8, 0x00cff3000000ffff
	SET_MSR MSR_SYSENTER_CS, 0x83
	POINT_MSR MSR_SYSENTER_ESP, (ring0_stack_top)
	POINT_MSR MSR_SYSENTER_EIP, (sysenter_entry)
	mov %rsp, saved_rsp
	ENTER_USER (0x3002 | FL_IF)
	sysenter
	nop
sysexit_target:
	mov %cs, %ebx
	mov %ss, %r8d
	mov %rsp, %r9
	LEAVE_USER
	CHECK "CS of SYSENTER", seen_cs, $0x80
	CHECK "SS of SYSENTER", seen_ss, $0x88
	CHECK "RSP of SYSENTER", seen_rsp, $ring0_stack_top
	mov seen_flags, %rax
	and $(FL_IF | FL_VM), %eax
	CHECK "SYSENTER clears IF", %rax, $0
	CHECK "CS of SYSEXIT with REX.W", %rbx, $0xa3
	CHECK "SS of SYSEXIT with REX.W", %r8, $0xab
	CHECK "RSP of SYSEXIT", %r9, $user_stack_top-32
	mov %rsp, user_return_rsp
	mov $4f, %edx
	mov $user_stack_top, %ecx
	sysexitl
	.code32
4:	mov %cs, %ebx
	mov %ss, %edx
	LEAVE_USER
	.code64
	CHECK "CS of SYSEXIT to compatibility mode", %rbx, $0x93
	CHECK "SS of SYSEXIT to compatibility mode", %rdx, $0x9b
	USER_FAULTS "SYSEXIT at CPL 3", GP, 0, sysexitq
	mov $0x800000000000, %rdx
	FAULTS "SYSEXIT to an address that is not canonical", GP, 0, sysexitq
	mov $main, %edx
	mov $0x800000000000, %rcx
	FAULTS "SYSEXIT with a stack that is not canonical", GP, 0, sysexitq

	# Bases of FS and GS
	POINT_MSR MSR_FS_BASE, (scratch)
	POINT_MSR MSR_GS_BASE, (scratch + 0x100)
	POINT_MSR MSR_KERNEL_GS_BASE, (scratch + 0x200)
	movq $1, scratch
	movq $2, scratch + 0x100
	movq $3, scratch + 0x200
	CHECK "FS base", %fs:0, $1
	CHECK "GS base", %gs:0, $2
	swapgs
	CHECK "SWAPGS", %gs:0, $3
	swapgs
	CHECK "SWAPGS again", %gs:0, $2
	USER_FAULTS "SWAPGS at CPL 3", GP, 0, swapgs
	mov $MSR_FS_BASE, %ecx
	xor %eax, %eax
	mov $0x8000, %edx
	FAULTS "FS base that is not canonical", GP, 0, wrmsr
	mov $MSR_KERNEL_GS_BASE, %ecx
	FAULTS "kernel GS base that is not canonical", GP, 0, wrmsr
	# FSGSBASE (Vol. 2A RDFSBASE, WRFSBASE)
	FAULTS "RDFSBASE without CR4.FSGSBASE", UD, NONE, rdfsbase %rax
	OR_CR cr4, CR4_FSGSBASE
	RUNS "RDFSBASE", rdfsbase %rax
	CHECK "what it gives", %rax, $scratch
	mov $scratch + 0x300, %eax
	movq $4, scratch + 0x300
	ENTER_USER
	wrgsbase %rax
	mov %gs:0, %rbx
	LEAVE_USER
	CHECK "WRGSBASE at CPL 3", %rbx, $4
	mov $0x800000000000, %rax
	FAULTS "WRFSBASE of an address that is not canonical", GP, 0, wrfsbase %rax
	mov $-1, %rax
	wrfsbase %eax
	rdfsbase %rax
	CHECK "32-bit WRFSBASE", %rax, $0xffffffff
	# Loading a selector loads a 32-bit base; a null one keeps or clears it (not specified), so a data segment is loaded
	mov $DATA, %eax
	mov %eax, %fs
	rdfsbase %rax
	CHECK "loading FS takes the descriptor's base", %rax, $0
	# LFENCE-like order aside, 67H wraps effective addresses before the base is added
	POINT_MSR MSR_GS_BASE, (scratch)
	mov $0x100000000, %rbx
	CHECK "effective address of 32 bits plus a base", %gs:(%ebx), $1
	CLEAR_CR cr4, CR4_FSGSBASE
	# Compatibility mode has no SYSCALL and SYSRET (of Intel's processors)
	TRY
	pushq $CODE32
	pushq $5f
	rex.w lret
	.code32
5:	syscall
	.code64
	END_TRY
	EXPECT "SYSCALL in compatibility mode", UD, NONE, 5b
	TRY
	pushq $CODE32
	pushq $6f
	rex.w lret
	.code32
6:	sysretl
	.code64
	END_TRY
	EXPECT "SYSRET in compatibility mode", UD, NONE, 6b
	ret

syscall_entry:
	mov %rsp, seen_rsp
	mov saved_rsp, %rsp
	mov %rcx, seen_rcx
	mov %r11, seen_r11
	pushfq
	popq seen_flags
	mov %cs, seen_cs
	mov %ss, seen_ss
	test %eax, %eax
	jnz 1f
	mov seen_rsp, %rsp
	sysretq
1:	mov seen_rsp, %rsp
	push %r11
	popfq
	jmp *%rcx

sysenter_entry:
	mov %rsp, seen_rsp
	mov %cs, seen_cs
	mov %ss, seen_ss
	pushfq
	popq seen_flags
	mov $sysexit_target, %edx
	mov $user_stack_top - 32, %ecx
	sysexitq

	.data
	.balign 8
saved_rsp:	.quad 0
seen_rcx:	.quad 0
seen_r11:	.quad 0
seen_flags:	.quad 0
seen_cs:	.quad 0
seen_ss:	.quad 0
seen_rsp:	.quad 0
