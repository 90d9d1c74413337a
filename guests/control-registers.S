# Control registers: reserved bits and what belongs together (SDM Vol. 2B MOV CR; Vol. 3A 2.5), SMSW, LMSW, CLTS, MSRs (Vol. 2B RDMSR,
# WRMSR), XCR0 (Vol. 2C XSETBV), TSC and performance counters at CPL 3, UMIP.

#include "kernel.inc"

# A write that is refused, of the present value with bits changed.
.macro CR_REFUSES name:req, cr:req, set=0, clear=0
	mov %\cr, %rax
	mov $\set, %rbx
	or %rbx, %rax
	mov $\clear, %rbx
	not %rbx
	and %rbx, %rax
	FAULTS "\name", GP, 0, mov %rax, %\cr
.endm
.macro CR_TAKES name:req, cr:req, set=0, clear=0
	mov %\cr, %rdx
	mov %rdx, %rax
	mov $\set, %rbx
	or %rbx, %rax
	mov $\clear, %rbx
	not %rbx
	and %rbx, %rax
	TRY
	mov %rax, %\cr
	END_TRY
	mov %\cr, %rcx
	mov %rdx, %\cr
	CHECK "\name", fault_vector, $-1
	CHECK "\name: value", %rcx, %rax
.endm
.macro MSR_REFUSES name:req, msr:req, value:req
	mov $\msr, %ecx
	mov $((\value) & 0xffffffff), %eax
	mov $((\value) >> 32), %edx
	FAULTS "\name", GP, 0, wrmsr
.endm

	.code64
	.globl main
main:
	# CR0 (Vol. 3A 2.5)
	CR_REFUSES "CR0 bits above 31", cr0, 0x100000000
	CR_REFUSES "CR0.PG without PE", cr0, 0, CR0_PE
	CR_REFUSES "CR0.NW without CD", cr0, CR0_NW
	CR_REFUSES "clearing CR0.PG in 64-bit mode", cr0, 0, CR0_PG
	CR_TAKES "CR0.CD and NW", cr0, (CR0_CD | CR0_NW)
	CR_TAKES "CR0.CD", cr0, CR0_CD
	CR_TAKES "CR0.AM", cr0, CR0_AM
	CR_TAKES "clearing CR0.NE", cr0, 0, CR0_NE
	CR_TAKES "CR0.TS", cr0, CR0_TS
	# ET reads as one; reserved bits are ignored
	mov %cr0, %rax
	mov %rax, %rbx
	and $~0x10, %eax
	or $0x1ffc0, %eax
	mov %rax, %cr0
	mov %cr0, %rcx
	CHECK "CR0.ET stays, reserved bits are ignored", %rcx, %rbx

	# CR4
	CR_REFUSES "CR4 bits above 31", cr4, 0x100000000
	CR_REFUSES "reserved CR4 bit 31", cr4, 0x80000000
	CR_REFUSES "reserved CR4 bit 15", cr4, 0x8000
	CR_REFUSES "reserved CR4 bit 19", cr4, 0x80000
	CR_REFUSES "clearing CR4.PAE in IA-32e mode", cr4, 0, CR4_PAE
	CR_TAKES "CR4.TSD", cr4, CR4_TSD
	CR_TAKES "CR4.DE", cr4, CR4_DE
	CR_TAKES "CR4.PGE", cr4, CR4_PGE
	CR_TAKES "CR4.PCE", cr4, CR4_PCE
	CR_TAKES "CR4.MCE", cr4, 0x40
	CR_TAKES "CR4.SMEP", cr4, CR4_PSE
	CR_TAKES "CR4.FSGSBASE", cr4, CR4_FSGSBASE
	CR_TAKES "CR4.OSXSAVE", cr4, CR4_OSXSAVE
	CR_TAKES "CR4.UMIP", cr4, CR4_UMIP
	# CR8 (Vol. 3A 10.8.6)
	mov $16, %eax
	FAULTS "CR8 beyond 15", GP, 0, mov %rax, %cr8
	mov $5, %eax
	RUNS "CR8", mov %rax, %cr8
	xor %eax, %eax
	mov %rax, %cr8
	# CR2 takes anything
	mov $0x123456789abcdef0, %rax
	mov %rax, %cr2
	mov %cr2, %rcx
	CHECK "CR2", %rcx, %rax
	USER_FAULTS "MOV from CR0 at CPL 3", GP, 0, mov %cr0, %rax
	USER_FAULTS "MOV to CR0 at CPL 3", GP, 0, mov %rax, %cr0
	USER_FAULTS "MOV from CR8 at CPL 3", GP, 0, mov %cr8, %rax
	USER_FAULTS "CLTS at CPL 3", GP, 0, clts
	USER_FAULTS "LMSW at CPL 3", GP, 0, lmsw %ax
	USER_FAULTS "LGDT at CPL 3", GP, 0, lgdt scratch
	USER_FAULTS "LIDT at CPL 3", GP, 0, lidt scratch
	USER_FAULTS "LLDT at CPL 3", GP, 0, lldt %ax
	USER_FAULTS "LTR at CPL 3", GP, 0, ltr %ax
	USER_FAULTS "INVD at CPL 3", GP, 0, invd
	USER_FAULTS "WBINVD at CPL 3", GP, 0, wbinvd
	USER_FAULTS "RDMSR at CPL 3", GP, 0, rdmsr
	USER_FAULTS "WRMSR at CPL 3", GP, 0, wrmsr
	USER_FAULTS "HLT at CPL 3", GP, 0, hlt
	# SMSW, LMSW (Vol. 2B)
	mov %cr0, %rbx
	xor %eax, %eax
	smsw %rax
	CHECK "SMSW with a 64-bit register", %rax, %rbx
	mov $-1, %rax
	smsw %ax
	mov %rbx, %rcx
	or $-0x10000, %rcx
	CHECK "SMSW with a 16-bit register", %rax, %rcx
	mov $0xe, %eax
	lmsw %ax
	mov %cr0, %rcx
	and $0xf, %ecx
	CHECK "LMSW sets MP, EM, TS and cannot clear PE", %rcx, $0xf
	clts
	mov %cr0, %rcx
	and $0xf, %ecx
	CHECK "CLTS", %rcx, $7
	mov %rbx, %cr0
	# UMIP (Vol. 3A 2.5)
	USER_RUNS "SGDT at CPL 3", sgdt scratch
	USER_RUNS "SLDT at CPL 3", sldt %eax
	OR_CR cr4, CR4_UMIP
	USER_FAULTS "SGDT with UMIP", GP, 0, sgdt scratch
	USER_FAULTS "SIDT with UMIP", GP, 0, sidt scratch
	USER_FAULTS "SLDT with UMIP", GP, 0, sldt %eax
	USER_FAULTS "STR with UMIP", GP, 0, str %eax
	USER_FAULTS "SMSW with UMIP", GP, 0, smsw %eax
	RUNS "SMSW with UMIP at CPL 0", smsw %eax
	CLEAR_CR cr4, CR4_UMIP
	# RDTSC, RDPMC (Vol. 2B)
	USER_RUNS "RDTSC", rdtsc
	USER_RUNS "RDTSCP", rdtscp
	OR_CR cr4, CR4_TSD
	USER_FAULTS "RDTSC with CR4.TSD", GP, 0, rdtsc
	USER_FAULTS "RDTSCP with CR4.TSD", GP, 0, rdtscp
	RUNS "RDTSC with CR4.TSD at CPL 0", rdtsc
	CLEAR_CR cr4, CR4_TSD
	xor %ecx, %ecx
	USER_FAULTS "RDPMC at CPL 3 without CR4.PCE", GP, 0, rdpmc
	# SGDT and SIDT store 10 bytes
	movq $-1, scratch
	movq $-1, scratch + 8
	sgdt scratch
	CHECK "base of SGDT", scratch + 2, $gdt
	mov scratch, %rax
	movzwl %ax, %eax
	CHECK "limit of SGDT", %rax, $0x1ff
	movb $0x55, scratch + 10
	sidt scratch
	CHECK "base of SIDT", scratch + 2, $idt64
	mov scratch + 10, %rax
	movzbl %al, %eax
	CHECK "SIDT stores no more", %rax, $0x55
	movw $0x1ff, scratch
	movl $0, scratch + 2
	movl $0x8000, scratch + 6
	FAULTS "LGDT of a base that is not canonical", GP, 0, lgdt scratch
	FAULTS "LIDT of a base that is not canonical", GP, 0, lidt scratch

	# MSRs
	mov $0x12345678, %ecx
	FAULTS "RDMSR of an MSR that is not there", GP, 0, rdmsr
	FAULTS "WRMSR of an MSR that is not there", GP, 0, wrmsr
	MSR_REFUSES "reserved bit of IA32_EFER", MSR_EFER, 0x800000000
	MSR_REFUSES "reserved bit 1 of IA32_EFER", MSR_EFER, (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | 2)
	MSR_REFUSES "clearing IA32_EFER.LME with paging", MSR_EFER, (EFER_SCE | EFER_NXE)
	MSR_REFUSES "IA32_PAT with a reserved type", 0x277, 0x0007040600070402
	MSR_REFUSES "IA32_PAT with reserved bits", 0x277, 0x0007040600070486
	MSR_REFUSES "IA32_SYSENTER_ESP that is not canonical", 0x175, 0x8000000000000000
	MSR_REFUSES "IA32_SYSENTER_EIP that is not canonical", 0x176, 0x0000800000000000
	MSR_REFUSES "IA32_CSTAR that is not canonical", 0xc0000083, 0x0000800000000000
	MSR_REFUSES "IA32_TSC_AUX above 32 bits", 0xc0000103, 0x100000000
	SET_MSR 0x277, 0x0007040600070406
	mov $0x277, %ecx
	rdmsr
	CHECK "IA32_PAT low", %rax, $0x00070406
	# LMA can't be changed by software
	SET_MSR MSR_EFER, (EFER_SCE | EFER_LME | EFER_NXE)
	GET_MSR MSR_EFER
	CHECK "IA32_EFER.LMA is not written", %rax, $(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
	SET_MSR 0xc0000103, 0x77
	rdtscp
	CHECK "RDTSCP gives IA32_TSC_AUX", %rcx, $0x77
	# The upper halves of RAX and RDX are cleared by RDMSR, ECX alone counts
	mov $-1, %rax
	mov $-1, %rdx
	mov $0xffffffffc0000103, %rcx
	rdmsr
	CHECK "RDMSR clears the upper half of RAX", %rax, $0x77
	CHECK "RDMSR clears the upper half of RDX", %rdx, $0

	# XCR0 (Vol. 2C XSETBV, XGETBV; Vol. 1 13.3)
	xor %ecx, %ecx
	FAULTS "XGETBV without CR4.OSXSAVE", UD, NONE, xgetbv
	FAULTS "XSETBV without CR4.OSXSAVE", UD, NONE, xsetbv
	OR_CR cr4, CR4_OSXSAVE
	xgetbv
	CHECK "XCR0 at reset", %rax, $1
	mov $3, %eax
	xor %edx, %edx
	RUNS "XSETBV of x87 and SSE", xsetbv
	xgetbv
	CHECK "XCR0", %rax, $3
	mov $2, %eax
	FAULTS "XCR0 without x87", GP, 0, xsetbv
	mov $3, %eax
	mov $1, %edx
	FAULTS "XCR0 bits above 31", GP, 0, xsetbv
	xor %edx, %edx
	mov $0x103, %eax
	FAULTS "XCR0 bit 8", GP, 0, xsetbv
	mov $2, %ecx
	mov $3, %eax
	FAULTS "XCR2", GP, 0, xsetbv
	FAULTS "XGETBV of XCR2", GP, 0, xgetbv
	xor %ecx, %ecx
	USER_FAULTS "XSETBV at CPL 3", GP, 0, xsetbv
	USER_RUNS "XGETBV at CPL 3", xgetbv
	# CPUID reports CR4.OSXSAVE
	mov $1, %eax
	cpuid
	shr $27, %ecx
	and $1, %ecx
	CHECK "CPUID.1:ECX.OSXSAVE set", %rcx, $1
	xor %ecx, %ecx
	mov $1, %eax
	xor %edx, %edx
	xsetbv
	CLEAR_CR cr4, CR4_OSXSAVE
	mov $1, %eax
	cpuid
	shr $27, %ecx
	and $1, %ecx
	CHECK "CPUID.1:ECX.OSXSAVE clear", %rcx, $0
	ret
