// The files of src/ and what each imports, read from their text.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const SOURCES = join(ROOT, "src");

export interface Import {
  /** A file by its path below src, or the name of a package or built-in module. */
  readonly target: string;
  readonly line: number;
  /** `export ... from`. */
  readonly reexport: boolean;
  /** Nothing of it is left when the program runs. */
  readonly typeOnly: boolean;
}

export interface SourceFile {
  /** Below src, with forward slashes. */
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

/** Static imports and re-exports, imports of types in place, dynamic imports, and the files that workers are started with. */
const PATTERNS: readonly RegExp[] = [
  /^(import|export)\b[^;"']*?\bfrom\s*"([^"]+)"/gm,
  /^(import)\s*"([^"]+)"/gm,
  /\b(import)\(\s*"([^"]+)"\s*\)/g,
  /\bnew (URL)\(\s*"(\.[^"]+\.ts)",\s*import\.meta\.url\s*\)/g,
];

function isAwaited(text: string, at: number): boolean {
  return /\bawait\s+$/.test(text.slice(0, at));
}

function importsOf(path: string, text: string): Import[] {
  const found = PATTERNS.flatMap((pattern) =>
    Array.from(text.matchAll(pattern), (match) => {
      const [, keyword, specifier] = match;
      const relativeTo = specifier.startsWith(".") ? join(SOURCES, dirname(path), specifier) : undefined;
      return {
        target: relativeTo === undefined ? specifier : relative(SOURCES, relativeTo).replaceAll("\\", "/"),
        line: text.slice(0, match.index).split("\n").length,
        reexport: keyword === "export",
        typeOnly:
          /^(import|export) type\b/.test(match[0]) || (match[0].startsWith("import(") && !isAwaited(text, match.index)),
      };
    }),
  );
  return found.sort((a, b) => a.line - b.line);
}

export function sourceFiles(): SourceFile[] {
  return readdirSync(SOURCES, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .map((path) => path.replaceAll("\\", "/"))
    .sort()
    .map((path) => {
      const text = readFileSync(join(SOURCES, path), "utf8");
      return { path, text, imports: importsOf(path, text) };
    });
}
