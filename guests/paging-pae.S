# PAE paging: PDPTEs, their loading and checking, NX, 2-MByte pages, reserved bits (SDM Vol. 3A 4.4).

#include "kernel.inc"

#define PAGE(n) (TEST + (n) * 4096)
#define PDPTES scratch

.macro MAP_PAE n:req, frame:req, flags:req, high=0
	movl $(\frame + (\flags)), test_pt + (\n) * 8
	movl $(\high), test_pt + (\n) * 8 + 4
	invlpg TEST + (\n) * 4096
.endm
.macro RELOAD
	mov %cr3, %eax
	mov %eax, %cr3
.endm

	.code32
	.globl main32
main32:
	xor %ecx, %ecx
1:	mov %ecx, %eax
	shl $21, %eax
	or $(P | W | U | PS), %eax
	mov %eax, identity_pd(, %ecx, 8)
	inc %ecx
	cmp $512, %ecx
	jb 1b
	movl $(identity_pd + P), PDPTES
	movl $(test_pd + P), PDPTES + 8
	movl $(test_pt + (P | W | U)), test_pd
	mov $CR4_PAE, %eax
	mov %eax, %cr4
	mov $PDPTES, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $(CR0_PG | CR0_WP), %eax
	mov %eax, %cr0
	jmp 1f
1:	CHECK32 "PAE paging is on", $1, $1
	FAULTS32 "read of a page that is not present", PF, 0, mov PAGE(0), %dl
	movl $0x1234, test_pages
	MAP_PAE 0, test_pages, (P | W | U)
	CHECK32 "page of 4 KBytes", PAGE(0), $0x1234
	movl $0x5678, PAGE(0)
	mov test_pt, %eax
	and $(A | D), %eax
	CHECK32 "A and D", %eax, $(A | D)
	CHECK32 "the PDPTE has no A", PDPTES + 8, $(test_pd + P)
	USER_RUNS32 "user read", mov PAGE(0), %dl
	MAP_PAE 0, test_pages, (P | U)
	USER_FAULTS32 "user write to a read-only page", PF, 7, mov %al, PAGE(0)
	# Reserved bits: 63 without NXE, 62:52 and those above MAXPHYADDR always
	MAP_PAE 0, test_pages, (P | W | U), 0x80000000
	FAULTS32 "XD without NXE", PF, 9, mov PAGE(0), %dl
	MAP_PAE 0, test_pages, (P | W | U), 0x40000000
	FAULTS32 "bit 62", PF, 9, mov PAGE(0), %dl
	MAP_PAE 0, test_pages, (P | W | U), 0x00100000
	FAULTS32 "bit 52", PF, 9, mov PAGE(0), %dl
	MAP_PAE 0, test_pages, (P | W | U), 0x00080000
	FAULTS32 "bit 51", PF, 9, mov PAGE(0), %dl
	mov $MSR_EFER, %ecx
	rdmsr
	or $EFER_NXE, %eax
	wrmsr
	MAP_PAE 0, test_pages, (P | W | U), 0x80000000
	RUNS32 "XD with NXE", mov PAGE(0), %dl
	TRY32
	mov $PAGE(0), %eax
	call *%eax
	END_TRY32
	EXPECT32 "fetch with XD", PF, 0x11, PAGE(0)
	MAP_PAE 0, test_pages, 0
	TRY32
	mov $PAGE(0), %eax
	call *%eax
	END_TRY32
	EXPECT32 "fetch from a page that is not present, with NXE", PF, 0x10, PAGE(0)
	# 2-MByte pages need no CR4.PSE
	movl $0x13572468, 0x212344
	movl $(0x200000 + (P | W | U | PS)), test_pd + 8
	invlpg TEST + 0x200000
	CHECK32 "page of 2 MBytes", TEST + 0x212344, $0x13572468
	movl $(0x202000 + (P | W | U | PS)), test_pd + 8
	invlpg TEST + 0x200000
	FAULTS32 "reserved bit 13 of a 2-MByte page", PF, 9, mov TEST + 0x200000, %al
	movl $0, test_pd + 8

	# PDPTEs are loaded with CR3, not read at each walk
	movl $0, PDPTES + 8
	MAP_PAE 0, test_pages, (P | W | U)
	RUNS32 "a PDPTE changed in memory has no effect", mov PAGE(0), %dl
	RELOAD
	FAULTS32 "until CR3 is loaded", PF, 0, mov PAGE(0), %dl
	CHECK32 "P of the error code", fault_error, $0
	movl $(test_pd + P), PDPTES + 8
	FAULTS32 "nor does making it present", PF, 0, mov PAGE(0), %dl
	RELOAD
	RUNS32 "until CR3 is loaded again", mov PAGE(0), %dl
	# Reserved bits of PDPTEs: #GP(0) at the load, which then has no effect
	movl $(test_pd + (P | W)), PDPTES + 8
	mov %cr3, %eax
	FAULTS32 "PDPTE with bit 1", GP, 0, mov %eax, %cr3
	RUNS32 "the old PDPTEs stay", mov PAGE(0), %dl
	movl $(test_pd + (P | U)), PDPTES + 8
	FAULTS32 "PDPTE with bit 2", GP, 0, mov %eax, %cr3
	movl $(test_pd + (P | 0x20)), PDPTES + 8
	FAULTS32 "PDPTE with bit 5", GP, 0, mov %eax, %cr3
	movl $(test_pd + (P | 0x100)), PDPTES + 8
	FAULTS32 "PDPTE with bit 8", GP, 0, mov %eax, %cr3
	movl $(test_pd + P), PDPTES + 8
	movl $0x80000000, PDPTES + 12
	FAULTS32 "PDPTE with bit 63", GP, 0, mov %eax, %cr3
	movl $0x00080000, PDPTES + 12
	FAULTS32 "PDPTE with bit 51", GP, 0, mov %eax, %cr3
	movl $0, PDPTES + 12
	movl $2, PDPTES + 16
	RUNS32 "reserved bits of a PDPTE that is not present", mov %eax, %cr3
	movl $0, PDPTES + 16
	movl $(test_pd + (P | 0xe18)), PDPTES + 8
	RUNS32 "PWT, PCD and bits for software", mov %eax, %cr3
	movl $(test_pd + P), PDPTES + 8
	# Changes of CR0.CD, CR4.PGE and so on load them too (4.4.1)
	movl $0, PDPTES + 8
	mov %cr4, %eax
	or $CR4_PGE, %eax
	mov %eax, %cr4
	FAULTS32 "MOV to CR4 that changes PGE loads them", PF, 0, mov PAGE(0), %dl
	movl $(test_pd + P), PDPTES + 8
	and $~CR4_PGE, %eax
	mov %eax, %cr4
	RUNS32 "and again", mov PAGE(0), %dl
	movl $(test_pd + (P | W)), PDPTES + 8
	or $CR4_PGE, %eax
	FAULTS32 "a reserved bit found by MOV to CR4", GP, 0, mov %eax, %cr4
	mov %cr4, %ecx
	and $~CR4_PGE, %eax
	CHECK32 "CR4 is as before", %ecx, %eax
	movl $(test_pd + P), PDPTES + 8
	# CR3[4:0] are no address bits, bit 5 is: the table is aligned to 32 bytes
	mov PDPTES, %eax
	mov %eax, PDPTES + 32
	movl $(test_pd + P), PDPTES + 40
	movl $0, PDPTES + 8
	mov $PDPTES + 32 + 0x18, %eax
	mov %eax, %cr3
	RUNS32 "table at a multiple of 32", mov PAGE(0), %dl
	mov %cr3, %ecx
	CHECK32 "CR3 reads as written", %ecx, %eax
	mov $PDPTES, %eax
	mov %eax, %cr3
	movl $(test_pd + P), PDPTES + 8
	mov %cr0, %eax
	and $~CR0_PG, %eax
	mov %eax, %cr0
	# Without paging neither CR3 nor its table matter
	mov $0x12345000, %eax
	RUNS32 "CR3 without paging", mov %eax, %cr3
	movl $(test_pd + (P | W)), PDPTES + 8
	mov $PDPTES, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $CR0_PG, %eax
	FAULTS32 "PDPTE with a reserved bit found by setting CR0.PG", GP, 0, mov %eax, %cr0
	mov %cr0, %ecx
	and $~CR0_PG, %eax
	CHECK32 "CR0 is as before", %ecx, %eax
	mov $MSR_EFER, %ecx
	rdmsr
	and $~EFER_NXE, %eax
	wrmsr
	ret
