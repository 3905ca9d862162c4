/** A page of Markdown, taken apart as far as tests look at it. */
export interface MarkdownPage {
  /** Targets of links, as written. */
  readonly links: readonly string[];
  /** Names by which headings are linked to. */
  readonly anchors: ReadonlySet<string>;
  /** Headings of the second level, as written. */
  readonly sections: readonly string[];
  /** What stands between backticks, in one line each. */
  readonly inlineCode: readonly string[];
  /** Lines of code blocks; a line that ends in a backslash goes on with the next. */
  readonly codeLines: readonly string[];
}

/** Takes a page apart. HTML, and code that is indented instead of fenced, count as text. */
export function parseMarkdown(text: string): MarkdownPage {
  const fence = /^ *```[^\n]*\n([\s\S]*?)^ *```$/gm;
  const blocks = [...text.matchAll(fence)].map((match) => match[1]!);
  const prose = text.replace(fence, '');
  const inline = /`([^`]+)`/g;
  const withoutCode = prose.replace(inline, (_, code: string) => ' '.repeat(code.length));
  const headings = [...prose.matchAll(/^(#{1,6}) (.+)$/gm)];
  return {
    links: [...withoutCode.matchAll(/\]\(([^()\s]+)\)/g)].map((match) => match[1]!),
    anchors: new Set(anchorsOf(headings.map((match) => match[2]!))),
    sections: headings.filter((match) => match[1] === '##').map((match) => match[2]!),
    inlineCode: [...prose.matchAll(inline)].map((match) => match[1]!.replace(/\s+/g, ' ')),
    codeLines: blocks.flatMap((block) => block.replace(/\\\n\s*/g, ' ').split('\n')),
  };
}

/** As GitHub makes them: lower case, dashes for spaces, other signs left out, numbers for repeats. */
function anchorsOf(headings: readonly string[]): string[] {
  const seen = new Map<string, number>();
  return headings.map((heading) => {
    const slug = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replace(/\s/g, '-');
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    return count === 0 ? slug : `${slug}-${count}`;
  });
}
