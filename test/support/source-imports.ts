import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize, relative, sep } from 'node:path';
import ts from 'typescript';

/** One import of a source file. */
export interface SourceImport {
  /** The importing file, relative to the root, with forward slashes. */
  readonly from: string;
  /** A file relative to the root where it is ours, else the name of a package or "node:…". */
  readonly to: string;
  readonly ours: boolean;
  /** Gone at run time. */
  readonly typeOnly: boolean;
  /** `await import(…)`: loaded when it is reached. */
  readonly dynamic: boolean;
}

/** Every TypeScript file below `folder`, relative to `root`. */
export function sourceFiles(root: string, folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .sort();
}

/** Every import and re-export of a file. */
export function importsOf(root: string, file: string): SourceImport[] {
  return parseImports(file, readFileSync(join(root, file), 'utf8'));
}

/** The same for a source text; exported for the test of this function. */
export function parseImports(file: string, content: string): SourceImport[] {
  const source = ts.createSourceFile(file, content, ts.ScriptTarget.Latest);
  const imports: SourceImport[] = [];
  const add = (specifier: ts.Node, how: { typeOnly: boolean; dynamic: boolean }): void => {
    if (ts.isStringLiteralLike(specifier)) {
      imports.push({ from: file, ...target(file, specifier.text), ...how });
    }
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      const typeOnly = node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword;
      add(node.moduleSpecifier, { typeOnly, dynamic: false });
    } else if (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined) {
      add(node.moduleSpecifier, { typeOnly: node.isTypeOnly, dynamic: false });
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [specifier] = node.arguments;
      if (specifier !== undefined) {
        add(specifier, { typeOnly: false, dynamic: true });
      }
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add(node.argument.literal, { typeOnly: true, dynamic: false });
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return imports;
}

function target(file: string, specifier: string): { to: string; ours: boolean } {
  if (specifier.startsWith('.')) {
    return { to: normalize(join(dirname(file), specifier)), ours: true };
  }
  if (specifier.startsWith('node:')) {
    return { to: specifier, ours: false };
  }
  const depth = specifier.startsWith('@') ? 2 : 1;
  return { to: specifier.split('/').slice(0, depth).join('/'), ours: false };
}
