import type { Language } from './variables.ts';

/** What an email says, as plain text. */
export interface EmailParts {
  subject: string;
  heading: string;
  highlight?: string;
  body: readonly string[];
  button?: { label: string; link: string };
}

const service = 'Ride Safety';

const footers: Record<Language, string> = {
  en: `You get this because you use ${service}, or because somebody named you as an emergency contact. Which messages you get is set in the app.`,
  hi: `यह संदेश आपको इसलिए मिला क्योंकि आप ${service} का उपयोग करते हैं, या किसी ने आपको आपात संपर्क बनाया है। कौन-से संदेश मिलें, यह ऐप में तय होता है।`,
};

const entities: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

const escapeHtml = (text: string): string =>
  text.replace(/[&<>"']/g, (character) => entities[character] ?? character);

const font = `font-family:-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,'Noto Sans','Noto Sans Devanagari','Nirmala UI',Helvetica,Arial,sans-serif`;

/** Colours stand inline, for apps that drop styles; where styles are read, they follow the reader's dark mode. */
const styles = `
:root{color-scheme:light dark;supported-color-schemes:light dark}
a{color:#0b57d0}
@media (prefers-color-scheme:dark){
.page{background:#111318!important}
.card{background:#1c1f26!important;border-color:#343944!important}
.ink{color:#f1f3f7!important}
.soft{color:#b5bcc9!important}
.mark{background:#2a2f3a!important;color:#ffffff!important}
.act{background:#8ab4f8!important;color:#0b1526!important}
}
@media (max-width:480px){.pad{padding:24px 20px!important}}`;

const paragraph = (text: string) =>
  `<p class="ink" style="margin:0 0 16px;${font};font-size:16px;line-height:1.6;color:#1d2129">${escapeHtml(text)}</p>`;

const highlighted = (text: string) =>
  `<p class="mark" style="margin:0 0 20px;padding:16px 20px;border-radius:10px;background:#eef2f8;${font};font-size:${text.length <= 12 ? '30px;letter-spacing:2px' : '18px'};line-height:1.4;font-weight:700;color:#10131a;overflow-wrap:anywhere">${escapeHtml(text)}</p>`;

const buttonOf = ({ label, link }: NonNullable<EmailParts['button']>) =>
  `<p style="margin:4px 0 20px"><a class="act" href="${escapeHtml(link)}" style="display:inline-block;padding:14px 26px;border-radius:10px;background:#0b57d0;${font};font-size:17px;line-height:1.3;font-weight:700;color:#ffffff;text-decoration:none">${escapeHtml(label)}</a></p>
<p class="soft" style="margin:0 0 16px;${font};font-size:14px;line-height:1.5;color:#5b6472;overflow-wrap:anywhere">${escapeHtml(link)}</p>`;

/** The page: one column that fits any width, nothing loaded from elsewhere, every text escaped. */
export function htmlOf(parts: EmailParts, language: Language): string {
  const { subject, heading, highlight, body, button } = parts;
  const content = [
    ...(highlight === undefined ? [] : [highlighted(highlight)]),
    ...body.slice(0, 1).map(paragraph),
    ...(button === undefined ? [] : [buttonOf(button)]),
    ...body.slice(1).map(paragraph),
  ].join('\n');
  return `<!DOCTYPE html>
<html lang="${language}" dir="ltr">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<title>${escapeHtml(subject)}</title>
<style>${styles}
</style>
</head>
<body class="page" style="margin:0;padding:0;background:#eef0f4">
<div style="display:none;max-height:0;overflow:hidden">${escapeHtml(body[0] ?? heading)}</div>
<table class="page" role="presentation" width="100%" cellpadding="0" cellspacing="0" style="background:#eef0f4">
<tr><td align="center" style="padding:24px 12px">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0" style="max-width:560px">
<tr><td class="soft" style="padding:0 8px 12px;${font};font-size:15px;font-weight:700;color:#4a5362">${service}</td></tr>
<tr><td class="card pad" style="padding:32px 36px;border:1px solid #dde1e8;border-radius:14px;background:#ffffff">
<h1 class="ink" style="margin:0 0 18px;${font};font-size:24px;line-height:1.35;font-weight:700;color:#10131a;overflow-wrap:anywhere">${escapeHtml(heading)}</h1>
${content}
</td></tr>
<tr><td class="soft" style="padding:16px 8px 0;${font};font-size:13px;line-height:1.5;color:#5b6472">${escapeHtml(footers[language])}</td></tr>
</table>
</td></tr>
</table>
</body>
</html>
`;
}

/** The same for those who read plain text. */
export function textOf({ heading, highlight, body, button }: EmailParts, language: Language): string {
  return `${[
    heading,
    ...(highlight === undefined ? [] : [highlight]),
    ...body.slice(0, 1),
    ...(button === undefined ? [] : [`${button.label}: ${button.link}`]),
    ...body.slice(1),
    `--\n${footers[language]}`,
  ].join('\n\n')}\n`;
}
