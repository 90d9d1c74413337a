# Which state instructions may run: CR0.EM, MP, TS, NE, CR4.OSFXSR, OSXMMEXCPT (SDM Vol. 3A 2.5, 13.1; Vol. 1 8.7, 11.5; tables of #UD and
# #NM in Vol. 2).

#include "kernel.inc"

.macro CR0_IS set=0, clear=0
	mov %cr0, %rax
	and $~(CR0_EM | CR0_MP | CR0_TS), %eax
	or $\set, %eax
	mov %rax, %cr0
.endm

	.code64
	.globl main
main:
	mov $scratch, %ebx
	fninit
	# x87: #NM with EM or TS; WAIT with TS and MP
	CR0_IS CR0_MP
	RUNS "x87 instruction", fld1
	RUNS "WAIT", fwait
	CR0_IS CR0_EM
	FAULTS "x87 instruction with EM", NM, NONE, fld1
	FAULTS "FNINIT with EM", NM, NONE, fninit
	FAULTS "FNSTSW with EM", NM, NONE, fnstsw %ax
	RUNS "WAIT with EM", fwait
	CR0_IS CR0_TS
	FAULTS "x87 instruction with TS", NM, NONE, fld1
	FAULTS "x87 store with TS", NM, NONE, fstl (%rbx)
	FAULTS "FNSTCW with TS", NM, NONE, fnstcw (%rbx)
	RUNS "WAIT with TS and without MP", fwait
	CR0_IS (CR0_TS | CR0_MP)
	FAULTS "WAIT with TS and MP", NM, NONE, fwait
	FAULTS "FXSAVE with TS", NM, NONE, fxsave (%rbx)
	FAULTS "FXRSTOR with TS", NM, NONE, fxrstor (%rbx)
	FAULTS "SSE with TS", NM, NONE, addps %xmm0, %xmm0
	FAULTS "SSE load with TS", NM, NONE, movups TEST, %xmm0
	FAULTS "MMX with TS", NM, NONE, paddb %mm0, %mm0
	FAULTS "LDMXCSR with TS", NM, NONE, ldmxcsr (%rbx)
	FAULTS "EMMS with TS", NM, NONE, emms
	RUNS "PREFETCH with TS", prefetcht0 (%rbx)
	RUNS "SFENCE with TS", sfence
	RUNS "MOVNTI with TS", movnti %eax, (%rbx)
	RUNS "CRC32 with TS", crc32l %eax, %eax
	RUNS "POPCNT with TS", popcnt %eax, %eax
	RUNS "PAUSE with TS", pause
	# EM is #UD for MMX and SSE, before #NM of TS
	CR0_IS (CR0_TS | CR0_EM)
	FAULTS "SSE with EM", UD, NONE, addps %xmm0, %xmm0
	FAULTS "MMX with EM", UD, NONE, paddb %mm0, %mm0
	FAULTS "FXSAVE with EM", NM, NONE, fxsave (%rbx)
	FAULTS "LDMXCSR with EM", UD, NONE, ldmxcsr (%rbx)
	RUNS "MOVNTI with EM", movnti %eax, (%rbx)
	CR0_IS CR0_MP
	CLEAR_CR cr4, CR4_OSFXSR
	FAULTS "SSE without OSFXSR", UD, NONE, addps %xmm0, %xmm0
	FAULTS "SSE2 without OSFXSR", UD, NONE, paddb %xmm0, %xmm0
	FAULTS "STMXCSR without OSFXSR", UD, NONE, stmxcsr (%rbx)
	RUNS "MMX without OSFXSR", paddb %mm0, %mm0
	RUNS "FXSAVE without OSFXSR", fxsave (%rbx)
	OR_CR cr4, CR4_OSFXSR
	emms

	# x87 exceptions: #MF at the next waiting instruction with NE
	fninit
	movw $0x37b, (%rbx)
	fldcw (%rbx)
	fld1
	fldz
	RUNS "division by zero, unmasked, is pending", fdivrp
	FAULTS "#MF at the next x87 instruction", MF, NONE, fld1
	FAULTS "#MF at WAIT", MF, NONE, fwait
	FAULTS "#MF at an MMX instruction", MF, NONE, paddb %mm0, %mm0
	RUNS "FNSTSW does not wait", fnstsw %ax
	and $0xff, %eax
	CHECK "status: ZE and ES", %rax, $0x84
	RUNS "FNSTCW does not wait", fnstcw (%rbx)
	RUNS "FNSAVE does not wait", fnsave (%rbx)
	frstor (%rbx)
	FAULTS "FRSTOR brings it back", MF, NONE, fwait
	RUNS "FNCLEX", fnclex
	RUNS "WAIT behind FNCLEX", fwait
	# #NM goes before #MF
	fld1
	fldz
	fdivrp
	CR0_IS (CR0_TS | CR0_MP)
	FAULTS "#NM goes before #MF", NM, NONE, fwait
	CR0_IS CR0_MP
	RUNS "FNINIT does not wait", fninit
	# FXRSTOR of a pending exception
	fninit
	fxsave (%rbx)
	movw $0x37b, (%rbx)
	movw $0x84, 2(%rbx)
	RUNS "FXRSTOR does not raise", fxrstor (%rbx)
	FAULTS "FXRSTOR of a pending exception", MF, NONE, fwait
	fninit

	# SIMD exceptions: #XM with OSXMMEXCPT, else #UD
	movl $0x1d80, (%rbx)
	RUNS "LDMXCSR", ldmxcsr (%rbx)
	xorps %xmm1, %xmm1
	mov $0x3f800000, %eax
	movd %eax, %xmm0
	FAULTS "division by zero, unmasked", XM, NONE, divss %xmm1, %xmm0
	movd %xmm0, %eax
	CHECK "the destination is kept", %rax, $0x3f800000
	stmxcsr (%rbx)
	mov (%rbx), %eax
	and $0x3f, %eax
	CHECK "ZE is set", %rax, $4
	CLEAR_CR cr4, CR4_OSXMMEXCPT
	FAULTS "division by zero without OSXMMEXCPT", UD, NONE, divss %xmm1, %xmm0
	OR_CR cr4, CR4_OSXMMEXCPT
	movl $0x1f80, (%rbx)
	ldmxcsr (%rbx)
	RUNS "masked", divss %xmm1, %xmm0
	movl $0x11f80, (%rbx)
	FAULTS "reserved bit of MXCSR", GP, 0, ldmxcsr (%rbx)
	fxsave 512(%rbx)
	movl $0x10000, 512 + 24(%rbx)
	FAULTS "reserved bit of MXCSR by FXRSTOR", GP, 0, fxrstor 512(%rbx)
	# Precise: memory operands fault before numeric exceptions
	movl $0x1d80, (%rbx)
	ldmxcsr (%rbx)
	FAULTS "page fault before #XM", PF, 0, divss TEST, %xmm0
	movl $0x1f80, (%rbx)
	ldmxcsr (%rbx)
	USER_RUNS "SSE at CPL 3", addps %xmm0, %xmm0
	ret
