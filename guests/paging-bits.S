# Accessed and dirty flags (SDM Vol. 3A 4.8), reserved bits (4.5, 4.6 and 4.7), SMEP and SMAP (4.6.1), large and 1-GByte pages (4.5).

#include "kernel.inc"

#define PAGE(n) (TEST + (n) * 4096)
# 2-MByte pages of the window's directory, behind the page table
#define LARGE(n) (TEST + (n) * 0x200000)
#define GIGA 0x80000000

.macro MAP_LARGE n:req, gpa:req, flags:req
	movl $((\gpa) + ((\flags) & 0xfff)), test_pd + (\n) * 8
	movl $((\flags) >> 32), test_pd + (\n) * 8 + 4
	invlpg LARGE(\n)
.endm
.macro ENTRY_IS name:req, entry:req, mask:req, want:req
	push %rax
	mov \entry, %rax
	and $(\mask), %rax
	CHECK "\name", %rax, $(\want)
	pop %rax
.endm

	.code64
	.globl main
main:
	call accessed
	call reserved
	call large
	call smep
	call smap
	ret

accessed:
	MAP 0, test_pages, (P | W | U)
	andl $~(A | D), test_pd
	andl $~A, pdpt + 8
	mov %cr3, %rax
	mov %rax, %cr3
	mov PAGE(0), %al
	ENTRY_IS "a read sets A alone", test_pt, (A | D), A
	ENTRY_IS "A in the directory", test_pd, (A | D), A
	ENTRY_IS "A in the pointer table", pdpt + 8, A, A
	mov %al, PAGE(0)
	ENTRY_IS "a write after a read sets D", test_pt, (A | D), (A | D)
	ENTRY_IS "no D above the leaf", test_pd, (A | D), A
	MAP 0, test_pages, (P | W | U)
	mov %al, PAGE(0)
	ENTRY_IS "a write sets A and D", test_pt, (A | D), (A | D)
	MAP 0, test_pages, (P | W | U)
	addb $1, PAGE(0)
	ENTRY_IS "a read-modify-write sets A and D", test_pt, (A | D), (A | D)
	MAP 0, test_pages, (P | U)
	USER_FAULTS "a write that faults", PF, 7, mov %al, PAGE(0)
	ENTRY_IS "sets no D", test_pt, D, 0
	MAP 0, test_pages, (P | W)
	andl $~A, test_pd
	USER_FAULTS "a user access that faults", PF, 5, mov PAGE(0), %al
	ENTRY_IS "sets no D either", test_pt, D, 0
	MAP 0, test_pages, (P | W | U)
	movb $0xc3, PAGE(0)
	MAP 0, test_pages, (P | W | U)
	mov $PAGE(0), %eax
	call *%rax
	ENTRY_IS "a fetch sets A alone", test_pt, (A | D), A
	# CMPXCHG writes even where the comparison fails (SDM Vol. 2A CMPXCHG), SETcc and MOV always
	MAP 0, test_pages, (P | W | U)
	mov $1, %eax
	mov $2, %ecx
	cmpxchg %ecx, PAGE(0) + 64
	ENTRY_IS "CMPXCHG that fails sets D", test_pt, D, D
	MAP 0, test_pages, (P | W | U)
	cmpb $0, PAGE(0)
	testb $1, PAGE(0)
	btl $1, PAGE(0)
	ENTRY_IS "comparisons set no D", test_pt, (A | D), A
	# A store across a page end: D in both
	MAP 1, test_pages + 0x1000, (P | W | U)
	MAP 0, test_pages, (P | W | U)
	mov %rax, PAGE(1) - 4
	ENTRY_IS "a store across pages sets D in the first", test_pt, D, D
	ENTRY_IS "and in the second", test_pt + 8, D, D
	# D already set by software, A not: A is set at the first use
	MAP 0, test_pages, (P | W | U | D)
	mov PAGE(0), %al
	ENTRY_IS "A is set beside D", test_pt, (A | D), (A | D)
	# The flag is set again once software has cleared it and flushed
	andl $~(A | D), test_pt
	invlpg PAGE(0)
	mov %al, PAGE(0)
	ENTRY_IS "D is set again after INVLPG", test_pt, (A | D), (A | D)
	ret

reserved:
	# Physical address bits from MAXPHYADDR up are reserved; 51 is above any (SDM Vol. 3A 4.1.4)
	MAP 0, test_pages, (P | W | U | 1 << 51)
	FAULTS "reserved bit 51 of a page table entry", PF, 9, mov PAGE(0), %al
	FAULTS "reserved bit, write", PF, 0xb, mov %al, PAGE(0)
	USER_FAULTS "reserved bit, user write", PF, 0xf, mov %al, PAGE(0)
	TRY
	mov $PAGE(0), %eax
	jmp *%rax
	END_TRY
	EXPECT "reserved bit, fetch", PF, 0x19, PAGE(0)
	# Reserved bits count in entries that are present only
	MAP 0, test_pages, (W | U | 1 << 51)
	FAULTS "reserved bit of an entry that is not present", PF, 0, mov PAGE(0), %al
	# Bits 52 to 62 are for software
	MAP 0, test_pages, (P | W | U | 0x7ff << 52)
	RUNS "bits 52 to 62 are ignored", mov PAGE(0), %al
	MAP 0, test_pages, (P | W | U | 0xe00)
	RUNS "bits 9 to 11 are ignored", mov PAGE(0), %al
	MAP 0, test_pages, (P | W | U)
	orl $1 << 19, test_pd + 4
	invlpg PAGE(0)
	FAULTS "reserved bit of a directory entry", PF, 9, mov PAGE(0), %al
	andl $~(1 << 19), test_pd + 4
	orl $1 << 19, pdpt + 12
	mov %cr3, %rax
	mov %rax, %cr3
	FAULTS "reserved bit of a pointer table entry", PF, 9, mov PAGE(0), %al
	andl $~(1 << 19), pdpt + 12
	# PS in a PML4E is reserved
	movl $(pdpt + (P | W | U | PS)), pml4 + 8
	mov %cr3, %rax
	mov %rax, %cr3
	mov $0x8000000000, %rbx
	FAULTS "PS of a PML4 entry", PF, 9, mov (%rbx), %al
	movl $0, pml4 + 8
	# XD is reserved while IA32_EFER.NXE is clear
	MAP 0, test_pages, (P | W | U | NX)
	RUNS "XD with NXE", mov PAGE(0), %al
	mov $MSR_EFER, %ecx
	rdmsr
	and $~EFER_NXE, %eax
	wrmsr
	mov %cr3, %rax
	mov %rax, %cr3
	FAULTS "XD without NXE", PF, 9, mov PAGE(0), %al
	UNMAP 0
	TRY
	mov $PAGE(0), %eax
	jmp *%rax
	END_TRY
	EXPECT "without NXE and SMEP a fetch is not reported", PF, 0, PAGE(0)
	mov $MSR_EFER, %ecx
	rdmsr
	or $EFER_NXE, %eax
	wrmsr
	mov %cr3, %rax
	mov %rax, %cr3
	ret

large:
	# Bits 13 to 20 of a 2-MByte page are reserved, bit 12 is PAT
	MAP_LARGE 1, 0x200000, (P | W | U | PS)
	movl $0x12345678, 0x234560
	CHECK "2-MByte page", LARGE(1) + 0x34560, $0x12345678
	movl $0x9abcdef0, LARGE(1) + 0x1ffff8
	CHECK "end of a 2-MByte page", 0x3ffff8, $0x9abcdef0
	ENTRY_IS "A and D of a 2-MByte page", test_pd + 8, (A | D), (A | D)
	MAP_LARGE 1, 0x201000, (P | W | U | PS)
	RUNS "PAT bit of a 2-MByte page", mov LARGE(1) + 0x34560, %eax
	CHECK "read through it", %rax, $0x12345678
	MAP_LARGE 1, 0x202000, (P | W | U | PS)
	FAULTS "reserved bit 13 of a 2-MByte page", PF, 9, mov LARGE(1), %al
	MAP_LARGE 1, 0x300000, (P | W | U | PS)
	FAULTS "reserved bit 20 of a 2-MByte page", PF, 9, mov LARGE(1), %al
	MAP_LARGE 1, 0x200000, (P | PS)
	USER_FAULTS "user read of a supervisor 2-MByte page", PF, 5, mov LARGE(1), %al
	FAULTS "write to a read-only 2-MByte page", PF, 3, mov %al, LARGE(1)
	MAP_LARGE 1, 0x200000, (P | PS | NX)
	TRY
	mov $LARGE(1), %eax
	jmp *%rax
	END_TRY
	EXPECT "fetch from a 2-MByte page with NX", PF, 0x11, LARGE(1)
	MAP_LARGE 1, 0, 0
	# A store across two large pages that map to frames apart
	MAP_LARGE 2, 0x600000, (P | W | U | PS)
	MAP_LARGE 3, 0x400000, (P | W | U | PS)
	mov $0x1122334455667788, %rax
	mov %rax, LARGE(3) - 4
	CHECK "store across 2-MByte pages, low half", 0x7ffffc, $0x55667788
	mov 0x400000, %eax
	CHECK "high half", %rax, $0x11223344
	# 1-GByte pages (CPUID 80000001H EDX bit 26)
	movl $(P | W | U | PS), pdpt + 16
	mov %cr3, %rax
	mov %rax, %cr3
	mov $GIGA, %ebx
	movl $0x13579bdf, 0x345678
	CHECK "1-GByte page", 0x345678(%rbx), $0x13579bdf
	ENTRY_IS "A of a 1-GByte page", pdpt + 16, (A | D), A
	movl $0x2468, 0x345678(%rbx)
	ENTRY_IS "D of a 1-GByte page", pdpt + 16, (A | D), (A | D)
	movl $(P | W | U | PS | 1 << 13), pdpt + 16
	mov %cr3, %rax
	mov %rax, %cr3
	FAULTS "reserved bit 13 of a 1-GByte page", PF, 9, mov (%rbx), %al
	movl $(P | W | U | PS | 1 << 29), pdpt + 16
	mov %cr3, %rax
	mov %rax, %cr3
	FAULTS "reserved bit 29 of a 1-GByte page", PF, 9, mov (%rbx), %al
	movl $0, pdpt + 16
	mov %cr3, %rax
	mov %rax, %cr3
	ret

# The kernel's own 2 MBytes become supervisor pages for these.
smep:
	MAP 0, test_pages, (P | W | U)
	movb $0xc3, PAGE(0)
	andl $~U, identity_pd
	mov %cr3, %rax
	mov %rax, %cr3
	mov $PAGE(0), %ebx
	RUNS "supervisor fetch from a user page without SMEP", call *%rbx
	OR_CR cr4, CR4_SMEP
	TRY
	call *%rbx
	END_TRY
	EXPECT "supervisor fetch from a user page with SMEP", PF, 0x11, PAGE(0)
	# SMEP is not about data
	RUNS "data access to a user page with SMEP", mov PAGE(0), %al
	# A page is a user page only where all levels say so
	andl $~U, test_pd
	invlpg PAGE(0)
	RUNS "SMEP with a supervisor directory entry", call *%rbx
	orl $U, test_pd
	invlpg PAGE(0)
	# SMEP reports fetches without NXE as well
	UNMAP 1
	mov $MSR_EFER, %ecx
	rdmsr
	and $~EFER_NXE, %eax
	wrmsr
	TRY
	mov $PAGE(1), %eax
	jmp *%rax
	END_TRY
	EXPECT "with SMEP a fetch is reported without NXE", PF, 0x10, PAGE(1)
	mov $MSR_EFER, %ecx
	rdmsr
	or $EFER_NXE, %eax
	wrmsr
	CLEAR_CR cr4, CR4_SMEP
	RUNS "clearing SMEP", call *%rbx
	ret

smap:
	MAP 0, test_pages, (P | W | U)
	RUNS "read of a user page without SMAP", mov PAGE(0), %al
	OR_CR cr4, CR4_SMAP
	FAULTS "read of a user page with SMAP", PF, 1, mov PAGE(0), %al
	FAULTS "write to a user page with SMAP", PF, 3, mov %al, PAGE(0)
	FAULTS "read-modify-write of a user page with SMAP", PF, 3, addl $1, PAGE(0)
	mov $PAGE(0), %edi
	FAULTS "string store to a user page with SMAP", PF, 3, stosb
	mov $PAGE(0), %ebx
	movb $0xc3, test_pages
	RUNS "SMAP is not about fetches", call *%rbx
	# AC overrides; STAC and CLAC set it (SDM Vol. 2B STAC)
	stac
	RUNS "read with AC", mov PAGE(0), %al
	RUNS "write with AC", mov %al, PAGE(0)
	clac
	FAULTS "read after CLAC", PF, 1, mov PAGE(0), %al
	pushfq
	orl $FL_AC, (%rsp)
	popfq
	RUNS "read with AC set by POPF", mov PAGE(0), %al
	pushfq
	andl $~FL_AC, (%rsp)
	popfq
	FAULTS "read with AC cleared by POPF", PF, 1, mov PAGE(0), %al
	# Implicit accesses do not look at AC: an LDT in a user page
	MAP 1, test_pages, (P | W | U)
	mov gdt + DATA, %rax
	mov %rax, test_pages + 8
	DESCRIPTOR FREE, 0x4000820010000fff
	movq $0, gdt + FREE + 8
	mov $FREE, %ecx
	lldt %cx
	mov $0xc, %ecx
	stac
	mov PAGE(1) + 8, %al
	mov %al, PAGE(1) + 8
	FAULTS "descriptor in a user page, whatever AC", PF, 1, mov %ecx, %es
	clac
	CHECK "CR2 of the descriptor", fault_cr2, $PAGE(1) + 8
	CLEAR_CR cr4, CR4_SMAP
	RUNS "descriptor in a user page without SMAP", mov %ecx, %es
	OR_CR cr4, CR4_SMAP
	# Read-only pages still fault with AC
	MAP 0, test_pages, (P | U)
	stac
	FAULTS "AC does not override W", PF, 3, mov %al, PAGE(0)
	clac
	MAP 0, test_pages, (P | W | U)
	# STAC outside CPL 0 is undefined; without SMAP in CPUID too
	CLEAR_CR cr4, CR4_SMAP
	orl $U, identity_pd
	mov %cr3, %rax
	mov %rax, %cr3
	USER_FAULTS "STAC at CPL 3", UD, NONE, stac
	USER_FAULTS "CLAC at CPL 3", UD, NONE, clac
	ret
