# When cached translations end: INVLPG, MOV to CR3, CR4 and CR0, global pages, PCIDs and INVPCID (SDM Vol. 3A 4.10.4).

#include "kernel.inc"

#define PAGE(n) (TEST + (n) * 4096)

# Each frame holds its number; what a page reads tells which frame it is mapped to.
.macro SHOWS name:req, n:req, frame:req
	push %rax
	mov PAGE(\n), %eax
	CHECK "\name", %rax, $\frame
	pop %rax
.endm
# An entry changed without telling the processor.
.macro CHANGE n:req, frame:req, flags:req
	movl $(\frame + ((\flags) & 0xfff)), test_pt + (\n) * 8
.endm
.macro FLUSH
	push %rax
	mov %cr3, %rax
	mov %rax, %cr3
	pop %rax
.endm
#define F(n) (test_pages+(n)*0x1000)

	.code64
	.globl main
main:
	mov $test_pages, %ebx
	xor %ecx, %ecx
1:	mov %rcx, (%rbx)
	add $0x1000, %ebx
	inc %ecx
	cmp $16, %ecx
	jb 1b

	MAP 0, F(1), (P | W | U)
	MAP 1, F(2), (P | W | U)
	SHOWS "first mapping", 0, 1
	CHANGE 0, F(3), (P | W | U)
	invlpg PAGE(0) + 0xabc
	SHOWS "INVLPG with any address of the page", 0, 3
	CHANGE 0, F(4), (P | W | U)
	FLUSH
	SHOWS "MOV to CR3", 0, 4
	# Entries that are not present are not cached
	UNMAP 2
	FAULTS "page that is not present", PF, 0, mov PAGE(2), %al
	CHANGE 2, F(5), (P | W | U)
	SHOWS "becoming present needs no flush", 2, 5
	# More rights: the fault itself ends the old translation (4.10.4.3)
	CHANGE 2, F(5), (P | U)
	invlpg PAGE(2)
	mov PAGE(2), %al
	FAULTS "read-only", PF, 3, mov %al, PAGE(2)
	CHANGE 2, F(5), (P | W | U)
	RUNS "more rights need no flush after a fault", movl $5, PAGE(2)
	# The access that faults sees the tables of the moment
	CHANGE 2, F(6), (P | W | U)
	invlpg PAGE(2)
	SHOWS "remapped", 2, 6

	# What the processor itself reads is cached like everything else: an LDT, whose segments tell by their base which frame it is in
	mov $0x0000930000000fff, %rdx
	mov $F(1), %eax
	shl $16, %rax
	or %rdx, %rax
	mov %rax, F(8) + 8
	mov $F(2), %eax
	shl $16, %rax
	or %rdx, %rax
	mov %rax, F(9) + 8
	MAP 3, F(8), (P | W)
	DESCRIPTOR FREE, 0x4000820030000fff
	movq $0, gdt + FREE + 8
	mov $FREE, %ecx
	lldt %cx
	mov $0xc, %ecx
	mov %ecx, %fs
	CHECK "descriptor", %fs:0, $1
	CHANGE 3, F(9), (P | W)
	invlpg PAGE(3)
	mov %ecx, %fs
	CHECK "INVLPG of a descriptor's page", %fs:0, $2
	CHANGE 3, F(8), (P | W)
	FLUSH
	mov %ecx, %fs
	CHECK "MOV to CR3 and a descriptor's page", %fs:0, $1
	UNMAP 3
	invlpg PAGE(3)
	FAULTS "descriptor in a page that is not present", PF, 0, mov %ecx, %fs
	mov $DATA, %ecx
	mov %ecx, %fs

	# Higher levels
	movl $(scratch + (P | W | U)), test_pd
	movl $(F(7) + (P | W | U)), scratch
	invlpg PAGE(0)
	SHOWS "INVLPG drops cached directory entries", 0, 7
	movl $(test_pt + (P | W | U)), test_pd
	FLUSH
	SHOWS "table replaced", 0, 4

	# Large pages: INVLPG of any address in one drops all of it (4.10.4.1)
	movl $(0x200000 + (P | W | U | PS)), test_pd + 8
	movl $0x21, 0x205000
	movl $0x41, 0x405000
	movl $0x22, 0x3ff000
	movl $0x42, 0x5ff000
	mov $TEST + 0x200000, %ebx
	CHECK "2-MByte page", 0x5000(%rbx), $0x21
	CHECK "its end", 0x1ff000(%rbx), $0x22
	movl $(0x400000 + (P | W | U | PS)), test_pd + 8
	invlpg (%rbx)
	CHECK "INVLPG of the first address of a 2-MByte page", 0x5000(%rbx), $0x41
	CHECK "INVLPG of the first address, at the end", 0x1ff000(%rbx), $0x42
	movl $(0x200000 + (P | W | U | PS)), test_pd + 8
	invlpg 0x1ffabc(%rbx)
	CHECK "INVLPG of the last page of a 2-MByte page", 0x5000(%rbx), $0x21
	# Replaced by a page table, and back
	movl $(scratch + (P | W | U)), test_pd + 8
	movl $(F(9) + (P | W | U)), scratch + 5 * 8
	invlpg (%rbx)
	CHECK "2-MByte page split", 0x5000(%rbx), $9
	movl $(0x400000 + (P | W | U | PS)), test_pd + 8
	invlpg 0x5000(%rbx)
	CHECK "and joined", 0x5000(%rbx), $0x41
	movl $0, test_pd + 8
	invlpg (%rbx)
	FAULTS "and unmapped", PF, 0, mov 0x1ff000(%rbx), %al
	movl $(P | W | U | PS), pdpt + 16
	mov $0x80000000, %ebx
	CHECK "1-GByte page", 0x205000(%rbx), $0x21
	CHECK "1-GByte page further on", 0x405000(%rbx), $0x41
	movl $0, pdpt + 16
	invlpg 0x12345678(%rbx)
	FAULTS "INVLPG of any address of a 1-GByte page", PF, 0, mov 0x205000(%rbx), %al
	FAULTS "INVLPG of any address of a 1-GByte page, further on", PF, 0, mov 0x405000(%rbx), %al
	# Global pages
	OR_CR cr4, CR4_PGE
	MAP 0, F(1), (P | W | U | G)
	MAP 1, F(2), (P | W | U)
	SHOWS "global page", 0, 1
	SHOWS "page beside it", 1, 2
	CHANGE 1, F(3), (P | W | U)
	FLUSH
	SHOWS "MOV to CR3 drops pages that are not global", 1, 3
	CHANGE 0, F(4), (P | W | U | G)
	invlpg PAGE(0)
	SHOWS "INVLPG drops global pages", 0, 4
	CHANGE 0, F(5), (P | W | U | G)
	CLEAR_CR cr4, CR4_PGE
	SHOWS "clearing CR4.PGE drops global pages", 0, 5
	OR_CR cr4, CR4_PGE
	SHOWS "setting CR4.PGE", 0, 5
	CHANGE 0, F(6), (P | W | U | G)
	CLEAR_CR cr4, CR4_PGE
	SHOWS "clearing CR4.PGE again", 0, 6
	OR_CR cr4, CR4_PGE
	# A change of CR0.WP, CR4.SMEP and IA32_EFER.NXE is seen at once: they are no part of a translation's rights
	MAP 0, F(1), (P | U | G)
	mov PAGE(0), %eax
	FAULTS "global page, read-only", PF, 3, mov %al, PAGE(0)
	CLEAR_CR cr0, CR0_WP
	RUNS "global page without CR0.WP", movl $1, PAGE(0)
	OR_CR cr0, CR0_WP
	FAULTS "global page with CR0.WP again", PF, 3, mov %al, PAGE(0)

	# PCIDs (4.10.1): CR4.PCIDE with CR3[11:0] zero, then tags in CR3[11:0]
	mov %cr3, %rbx
	mov %rbx, %rax
	or $1, %rax
	mov %rax, %cr3
	mov %cr4, %rax
	or $CR4_PCIDE, %rax
	FAULTS "CR4.PCIDE with CR3[11:0] not zero", GP, 0, mov %rax, %cr4
	mov %rbx, %cr3
	RUNS "CR4.PCIDE", mov %rax, %cr4
	MAP 0, F(1), (P | W | U)
	SHOWS "page of PCID 0", 0, 1
	lea 5(%rbx), %rax
	mov %rax, %cr3
	mov %cr3, %rcx
	CHECK "CR3 reads with its PCID", %rcx, %rax
	CHANGE 0, F(2), (P | W | U)
	mov %rax, %cr3
	SHOWS "MOV to CR3 flushes the PCID it loads", 0, 2
	bts $63, %rax
	RUNS "MOV to CR3 with bit 63", mov %rax, %cr3
	mov %cr3, %rcx
	btr $63, %rax
	CHECK "bit 63 is not kept", %rcx, %rax
	CHANGE 0, F(3), (P | W | U)
	mov %rbx, %cr3
	SHOWS "PCID 0 sees the change after its flush", 0, 3
	CHANGE 0, F(4), (P | W | U)
	mov %rax, %cr3
	SHOWS "PCID 5 sees the change after its flush", 0, 4
	# CR0.PG may not be cleared with PCIDE; in 64-bit mode never
	mov %cr0, %rcx
	btr $31, %rcx
	FAULTS "clearing CR0.PG in 64-bit mode", GP, 0, mov %rcx, %cr0

	# INVPCID (SDM Vol. 2A): types 0 to 3
	movq $5, scratch
	movq $PAGE(0), scratch + 8
	CHANGE 0, F(5), (P | W | U)
	xor %ecx, %ecx
	RUNS "INVPCID type 0", invpcid scratch, %rcx
	SHOWS "INVPCID of one address", 0, 5
	CHANGE 0, F(6), (P | W | U)
	mov $1, %ecx
	RUNS "INVPCID type 1", invpcid scratch, %rcx
	SHOWS "INVPCID of one context", 0, 6
	CHANGE 0, F(7), (P | W | U | G)
	mov $2, %ecx
	RUNS "INVPCID type 2", invpcid scratch, %rcx
	SHOWS "INVPCID of everything", 0, 7
	CHANGE 0, F(8), (P | W | U | G)
	mov $2, %ecx
	invpcid scratch, %rcx
	SHOWS "INVPCID with global pages", 0, 8
	mov $3, %ecx
	RUNS "INVPCID type 3", invpcid scratch, %rcx
	mov $4, %ecx
	FAULTS "INVPCID type 4", GP, 0, invpcid scratch, %rcx
	mov $0x100000000, %rcx
	FAULTS "INVPCID type beyond 32 bits", GP, 0, invpcid scratch, %rcx
	movq $0x1005, scratch
	mov $1, %ecx
	FAULTS "INVPCID descriptor bits 63:12", GP, 0, invpcid scratch, %rcx
	movq $5, scratch
	movq $-1, scratch + 8
	btrq $62, scratch + 8
	xor %ecx, %ecx
	FAULTS "INVPCID of an address that is not canonical", GP, 0, invpcid scratch, %rcx
	mov $1, %ecx
	RUNS "INVPCID type 1 ignores the address", invpcid scratch, %rcx
	USER_FAULTS "INVPCID at CPL 3", GP, 0, invpcid scratch, %rcx
	USER_FAULTS "INVLPG at CPL 3", GP, 0, invlpg PAGE(0)
	# Without CR4.PCIDE only PCID 0 may be named
	mov %rbx, %cr3
	CLEAR_CR cr4, CR4_PCIDE
	movq $PAGE(0), scratch + 8
	mov $1, %ecx
	FAULTS "INVPCID of PCID 5 without CR4.PCIDE", GP, 0, invpcid scratch, %rcx
	movq $0, scratch
	RUNS "INVPCID of PCID 0 without CR4.PCIDE", invpcid scratch, %rcx
	# INVLPG ignores addresses that are not canonical, and knows no faults
	UNMAP 3
	RUNS "INVLPG of a page that is not present", invlpg PAGE(3)
	mov $0x1234567812345678, %rax
	RUNS "INVLPG of an address that is not canonical", invlpg (%rax)
	# CR3: bits above MAXPHYADDR
	mov %cr3, %rax
	bts $52, %rax
	FAULTS "CR3 bit 52", GP, 0, mov %rax, %cr3
	btr $52, %rax
	bts $63, %rax
	FAULTS "CR3 bit 63 without CR4.PCIDE", GP, 0, mov %rax, %cr3
	btr $63, %rax
	or $0xfff, %rax
	RUNS "CR3 bits 11:0 without CR4.PCIDE", mov %rax, %cr3
	mov %rbx, %cr3
	ret
