/**
 * Every text that the service sends, in its versions. A text that is changed gets a new version beside the old one: what waits in
 * a queue, and what is registered with operators (DLT) and WhatsApp, is the version that it was made for. A version goes
 * when nothing can wait for it any more.
 *
 * `{name}` stands for a value. In the OTP the code is the only run of 4 to 8 digits.
 */
import type { Language, Variable } from './variables.ts';

export interface EmailText {
  subject: string;
  heading: string;
  /** Paragraphs, in order. */
  body: readonly string[];
  /** A paragraph of its own, in large type. */
  highlight?: string;
  button?: { label: string; link: string };
}

/**
 * A text, or several by their names: the first is sent whose values are all there and which fits. Each is registered by itself: the
 * first under the template's name, the others with their own behind it.
 */
export type Wording = string | Readonly<Record<string, string>>;

/**
 * One template in one language. What WhatsApp sends is registered as it stands here, but for a sign-in code: there Meta has a
 * text of its own, whose only variable is the code too. Of an email those parts are left out whose values are not there.
 */
export interface Texts {
  sms: Wording;
  whatsapp: Wording;
  email: EmailText;
  push: { title: string; body: Wording };
}

export interface Template {
  variables: Readonly<Record<string, Variable>>;
  /** The most SMS segments that it may take: names are cut, then fewer words said, until it does. */
  smsSegments: Record<Language, number>;
  texts: Record<Language, Texts>;
}

const documentKind: Variable = {
  kind: 'choice',
  words: {
    license: { en: 'driving licence', hi: 'ड्राइविंग लाइसेंस' },
    rc: { en: 'registration certificate', hi: 'पंजीकरण प्रमाणपत्र' },
    insurance: { en: 'insurance', hi: 'बीमा' },
    photo: { en: 'photo', hi: 'फ़ोटो' },
    aadhar: { en: 'Aadhaar card', hi: 'आधार कार्ड' },
  },
};

/** By name, then by version. */
export const catalogue = {
  otp: {
    1: {
      variables: { code: { kind: 'code' } },
      smsSegments: { en: 1, hi: 1 },
      texts: {
        en: {
          sms: '{code} is your sign-in code. It is good for five minutes. Never share it, not even with us.',
          whatsapp:
            '{code} is your sign-in code. It is good for five minutes. Never share it, not even with us.',
          email: {
            subject: '{code} is your sign-in code',
            heading: 'Your sign-in code',
            highlight: '{code}',
            body: [
              'It is good for five minutes.',
              'Never share it, not even with us. If you did not ask for it, you can ignore this message.',
            ],
          },
          push: { title: 'Your sign-in code', body: '{code} is good for five minutes. Never share it.' },
        },
        hi: {
          sms: '{code} आपका साइन-इन कोड है। पाँच मिनट तक मान्य। किसी को न बताएँ।',
          whatsapp: '{code} आपका साइन-इन कोड है। यह पाँच मिनट तक मान्य है। इसे किसी को न बताएँ, हमें भी नहीं।',
          email: {
            subject: '{code} आपका साइन-इन कोड है',
            heading: 'आपका साइन-इन कोड',
            highlight: '{code}',
            body: [
              'यह पाँच मिनट तक मान्य है।',
              'इसे किसी को न बताएँ, हमें भी नहीं। अगर आपने इसे नहीं माँगा, तो इस संदेश पर ध्यान न दें।',
            ],
          },
          push: { title: 'आपका साइन-इन कोड', body: '{code} पाँच मिनट तक मान्य है। किसी को न बताएँ।' },
        },
      },
    },
  },

  'trip-accepted': {
    1: {
      variables: {
        driver: { kind: 'name', fallback: { en: 'Your driver', hi: 'आपके ड्राइवर' } },
        vehicle: { kind: 'name', fallback: { en: 'vehicle', hi: 'गाड़ी' } },
        plate: { kind: 'plate', fallback: { en: 'see the app', hi: 'ऐप में देखें' } },
      },
      smsSegments: { en: 2, hi: 2 },
      texts: {
        en: {
          sms: '{driver} is your driver: {vehicle}, number {plate}. Check the plate before you get in.',
          whatsapp:
            'Your ride is confirmed. {driver} is your driver, in {vehicle}, number {plate}. Check the plate before you get in.',
          email: {
            subject: 'Your ride is confirmed',
            heading: 'Your ride is confirmed',
            highlight: '{plate}',
            body: [
              '{driver} is your driver, in {vehicle}.',
              'Before you get in, check that the plate is the one above. In the app you can share your ride with people you trust.',
            ],
          },
          push: { title: 'Your ride is confirmed', body: '{driver}, {vehicle}, {plate}. Check the plate.' },
        },
        hi: {
          sms: '{driver} आपके ड्राइवर हैं: {vehicle}, {plate}. बैठने से पहले नंबर मिलाएँ।',
          whatsapp:
            'आपकी सवारी पक्की है। ड्राइवर {driver}, गाड़ी {vehicle}, नंबर {plate} है। बैठने से पहले नंबर प्लेट मिला लें।',
          email: {
            subject: 'आपकी सवारी पक्की है',
            heading: 'आपकी सवारी पक्की है',
            highlight: '{plate}',
            body: [
              'ड्राइवर {driver}, गाड़ी {vehicle}।',
              'बैठने से पहले देख लें कि नंबर प्लेट ऊपर लिखी हुई ही है। ऐप में आप अपनी सवारी भरोसे के लोगों से साझा कर सकते हैं।',
            ],
          },
          push: { title: 'आपकी सवारी पक्की है', body: '{driver}, {vehicle}, {plate}। नंबर प्लेट मिला लें।' },
        },
      },
    },
  },

  'trip-cancelled': {
    1: {
      variables: {},
      smsSegments: { en: 1, hi: 1 },
      texts: {
        en: {
          sms: 'Your ride has been cancelled. Open the app to book another.',
          whatsapp: 'Your ride has been cancelled. Open the app to book another.',
          email: {
            subject: 'Your ride has been cancelled',
            heading: 'Your ride has been cancelled',
            body: ['Nobody is coming for this ride any more. Open the app to book another.'],
          },
          push: { title: 'Ride cancelled', body: 'Your ride has been cancelled.' },
        },
        hi: {
          sms: 'आपकी सवारी रद्द हो गई है। दूसरी बुक करने के लिए ऐप खोलें।',
          whatsapp: 'आपकी सवारी रद्द हो गई है। दूसरी बुक करने के लिए ऐप खोलें।',
          email: {
            subject: 'आपकी सवारी रद्द हो गई है',
            heading: 'आपकी सवारी रद्द हो गई है',
            body: ['इस सवारी के लिए अब कोई नहीं आ रहा। दूसरी बुक करने के लिए ऐप खोलें।'],
          },
          push: { title: 'सवारी रद्द', body: 'आपकी सवारी रद्द हो गई है।' },
        },
      },
    },
  },

  'trip-ended': {
    1: {
      variables: {},
      smsSegments: { en: 1, hi: 1 },
      texts: {
        en: {
          sms: 'Your ride has ended. If anything was not right, tell us in the app.',
          whatsapp: 'Your ride has ended. If anything was not right, tell us in the app.',
          email: {
            subject: 'Your ride has ended',
            heading: 'Your ride has ended',
            body: [
              'Links with which you shared it stop working in a few minutes.',
              'If anything was not right, tell us in the app. We read every report.',
            ],
          },
          push: { title: 'Your ride has ended', body: 'If anything was not right, tell us.' },
        },
        hi: {
          sms: 'आपकी सवारी पूरी हुई। कुछ ठीक न लगा हो तो ऐप में बताएँ।',
          whatsapp: 'आपकी सवारी पूरी हुई। कुछ ठीक न लगा हो तो ऐप में बताएँ।',
          email: {
            subject: 'आपकी सवारी पूरी हुई',
            heading: 'आपकी सवारी पूरी हुई',
            body: [
              'जिन लिंक से आपने सवारी साझा की थी, वे कुछ मिनट में बंद हो जाएँगे।',
              'कुछ ठीक न लगा हो तो ऐप में बताएँ। हम हर शिकायत पढ़ते हैं।',
            ],
          },
          push: { title: 'आपकी सवारी पूरी हुई', body: 'कुछ ठीक न लगा हो तो हमें बताएँ।' },
        },
      },
    },
  },

  'safety-check': {
    1: {
      variables: { answerBy: { kind: 'time' } },
      smsSegments: { en: 1, hi: 2 },
      texts: {
        en: {
          sms: 'Are you OK? Something about your ride looks unusual. Answer in the app by {answerBy}, or our safety team steps in.',
          whatsapp:
            'Are you OK? Something about your ride looks unusual. Answer in the app by {answerBy}, or our safety team steps in.',
          email: {
            subject: 'Are you OK?',
            heading: 'Are you OK?',
            body: [
              'Something about your ride looks unusual. Please answer in the app by {answerBy}.',
              'If we do not hear from you, our safety team steps in.',
            ],
          },
          push: {
            title: 'Are you OK?',
            body: 'Something looks unusual. Tap to answer by {answerBy}.',
          },
        },
        hi: {
          sms: 'क्या आप ठीक हैं? सवारी में कुछ असामान्य लगा। {answerBy} तक ऐप में जवाब दें, नहीं तो हमारी सुरक्षा टीम मदद को आएगी।',
          whatsapp:
            'क्या आप ठीक हैं? आपकी सवारी में कुछ असामान्य लगा। {answerBy} तक ऐप में जवाब दें, नहीं तो हमारी सुरक्षा टीम मदद को आएगी।',
          email: {
            subject: 'क्या आप ठीक हैं?',
            heading: 'क्या आप ठीक हैं?',
            body: [
              'आपकी सवारी में कुछ असामान्य लगा। कृपया {answerBy} तक ऐप में जवाब दें।',
              'जवाब न मिलने पर हमारी सुरक्षा टीम मदद को आएगी।',
            ],
          },
          push: { title: 'क्या आप ठीक हैं?', body: 'कुछ असामान्य लगा। {answerBy} तक जवाब दें।' },
        },
      },
    },
  },

  'document-approved': {
    1: {
      variables: { document: documentKind },
      smsSegments: { en: 1, hi: 1 },
      texts: {
        en: {
          sms: 'Approved: your {document}. Open the app to see what is still needed.',
          whatsapp: 'Approved: your {document}. Open the app to see what is still needed.',
          email: {
            subject: 'Approved: your {document}',
            heading: 'Your {document} is approved',
            body: ['Thank you. Open the app to see whether anything is still needed before you can drive.'],
          },
          push: { title: 'Document approved', body: 'Your {document} is approved.' },
        },
        hi: {
          sms: 'स्वीकृत: आपका {document}। और क्या चाहिए, ऐप में देखें।',
          whatsapp: 'स्वीकृत: आपका {document}। और क्या चाहिए, ऐप में देखें।',
          email: {
            subject: 'स्वीकृत: आपका {document}',
            heading: 'स्वीकृत: आपका {document}',
            body: ['धन्यवाद। गाड़ी चलाने से पहले और कुछ चाहिए या नहीं, यह ऐप में देखें।'],
          },
          push: { title: 'दस्तावेज़ स्वीकृत', body: 'स्वीकृत: आपका {document}।' },
        },
      },
    },
  },

  'document-rejected': {
    1: {
      variables: { document: documentKind, reason: { kind: 'text' } },
      smsSegments: { en: 2, hi: 2 },
      texts: {
        en: {
          sms: 'Not accepted: your {document}. Reason: {reason}. Send it again in the app.',
          whatsapp: 'Not accepted: your {document}. Reason: {reason}. Please send it again in the app.',
          email: {
            subject: 'Please send your {document} again',
            heading: 'We could not accept your {document}',
            highlight: '{reason}',
            body: [
              'That is what was wrong with it. Please send it again in the app.',
              'A clear photo of the whole document, in daylight and without a flash, is best.',
            ],
          },
          push: { title: 'Document not accepted', body: 'Your {document}: {reason}' },
        },
        hi: {
          sms: 'अस्वीकृत: आपका {document}। कारण: {reason}। ऐप में फिर भेजें।',
          whatsapp: 'अस्वीकृत: आपका {document}। कारण: {reason}। कृपया ऐप में फिर भेजें।',
          email: {
            subject: 'कृपया फिर भेजें: आपका {document}',
            heading: 'अस्वीकृत: आपका {document}',
            highlight: '{reason}',
            body: [
              'ऊपर लिखा कारण था। कृपया इसे ऐप में फिर भेजें।',
              'पूरे दस्तावेज़ की साफ़ फ़ोटो, दिन की रोशनी में और बिना फ़्लैश के, सबसे अच्छी रहती है।',
            ],
          },
          push: { title: 'दस्तावेज़ अस्वीकृत', body: 'आपका {document}: {reason}' },
        },
      },
    },
  },

  // Where somebody is stands in the text itself: whoever reads it may have no data connection, and a link may not open
  'sos-raised': {
    1: {
      variables: {
        name: { kind: 'name', fallback: { en: 'Somebody who named you', hi: 'आपके किसी परिचित' } },
        fix: {
          kind: 'choice',
          words: {
            gps: { en: 'At', hi: 'यहाँ' },
            'last-known': { en: 'Last seen', hi: 'पिछली जगह' },
          },
          optional: true,
        },
        place: { kind: 'place', optional: true },
        age: { kind: 'age', optional: true },
        link: { kind: 'link', optional: true },
      },
      smsSegments: { en: 2, hi: 2 },
      texts: {
        en: {
          sms: {
            full: 'SOS: {name} needs help. {fix} https://maps.google.com/?q={place} ({place}, {age}). Follow: {link} Call them. In danger, call 112.',
            // A name in another script takes more room: the link goes before the place does
            short: 'SOS: {name}. https://maps.google.com/?q={place} {link}',
            place: 'SOS: {name} needs help. {fix} https://maps.google.com/?q={place} ({place}, {age}).',
            live: 'SOS: {name} needs help. Location not known. Follow: {link}',
            bare: 'SOS: {name} needs help. Location not known.',
          },
          whatsapp: {
            live: 'SOS: {name} needs help now and named you as an emergency contact. Follow live: {link} Call them. In danger, call 112.',
            place:
              'SOS: {name} needs help now and named you as an emergency contact. {fix} https://maps.google.com/?q={place} ({age}). Call them. In danger, call 112.',
            bare: 'SOS: {name} needs help now and named you as an emergency contact. Call them. In danger, call 112.',
          },
          email: {
            subject: 'SOS: {name} needs help now',
            heading: '{name} needs help now',
            body: [
              'They pressed SOS and named you as an emergency contact. Call them.',
              '{fix} https://maps.google.com/?q={place} ({place}, {age}).',
              'If they do not answer or are in danger, call 112. Tell the police what you see on the map.',
            ],
            button: { label: 'Follow them live', link: '{link}' },
          },
          push: {
            title: 'SOS: {name}',
            body: {
              place: 'Needs help now. {fix} {place}, {age}. Tap for the map.',
              bare: 'Needs help now. Location not known. Call them.',
            },
          },
        },
        hi: {
          sms: {
            full: 'SOS: {name} को मदद चाहिए। https://maps.google.com/?q={place} {link}',
            short: 'SOS: {name}। https://maps.google.com/?q={place} {link}',
            place: 'SOS: {name} को मदद चाहिए। {fix} https://maps.google.com/?q={place} ({age})। फ़ोन करें।',
            live: 'SOS: {name} को मदद चाहिए। जगह पता नहीं। यहाँ देखें: {link}',
            bare: 'SOS: {name} को मदद चाहिए। जगह पता नहीं। उन्हें फ़ोन करें। ख़तरे में 112 पर।',
          },
          whatsapp: {
            live: 'SOS: {name} को अभी मदद चाहिए। उन्होंने आपको आपात संपर्क बनाया है। यहाँ देखें: {link} उन्हें फ़ोन करें। ख़तरे में 112 पर फ़ोन करें।',
            place:
              'SOS: {name} को अभी मदद चाहिए। उन्होंने आपको आपात संपर्क बनाया है। {fix} https://maps.google.com/?q={place} ({age})। उन्हें फ़ोन करें। ख़तरे में 112 पर फ़ोन करें।',
            bare: 'SOS: {name} को अभी मदद चाहिए। उन्होंने आपको आपात संपर्क बनाया है। उन्हें फ़ोन करें। ख़तरे में 112 पर फ़ोन करें।',
          },
          email: {
            subject: 'SOS: {name} को अभी मदद चाहिए',
            heading: '{name} को अभी मदद चाहिए',
            body: [
              'उन्होंने SOS दबाया है और आपको आपात संपर्क बनाया है। उन्हें फ़ोन करें।',
              '{fix} https://maps.google.com/?q={place} ({place}, {age})।',
              'जवाब न मिले या ख़तरा हो तो 112 पर फ़ोन करें। नक़्शे पर जो दिखे, पुलिस को बताएँ।',
            ],
            button: { label: 'उन्हें नक़्शे पर देखें', link: '{link}' },
          },
          push: {
            title: 'SOS: {name}',
            body: {
              place: 'अभी मदद चाहिए। {fix} {place}, {age}। नक़्शे के लिए टैप करें।',
              bare: 'अभी मदद चाहिए। जगह पता नहीं। उन्हें फ़ोन करें।',
            },
          },
        },
      },
    },
  },

  'sos-over': {
    1: {
      variables: {
        name: { kind: 'name', fallback: { en: 'the person who named you', hi: 'आपके परिचित' } },
        how: {
          kind: 'choice',
          words: {
            resolved: { en: 'our team has closed it', hi: 'हमारी टीम ने बंद किया' },
            'called-off': { en: 'it was called off', hi: 'वापस ले लिया गया' },
          },
        },
      },
      smsSegments: { en: 2, hi: 2 },
      texts: {
        en: {
          sms: 'The SOS of {name} is over: {how}. Thank you for being there.',
          whatsapp: 'The SOS of {name} is over. Thank you for being there.',
          email: {
            subject: 'The SOS of {name} is over',
            heading: 'The SOS is over',
            body: ['The SOS of {name} is over: {how}. Thank you for being there.'],
          },
          push: { title: 'The SOS is over', body: 'The SOS of {name} is over: {how}.' },
        },
        hi: {
          sms: '{name} का SOS समाप्त हो गया है: {how}। साथ देने के लिए धन्यवाद।',
          whatsapp: 'SOS समाप्त हो गया है: {name}। साथ देने के लिए धन्यवाद।',
          email: {
            subject: '{name} का SOS समाप्त हो गया है',
            heading: 'SOS समाप्त हो गया है',
            body: ['{name} का SOS समाप्त हो गया है: {how}। साथ देने के लिए धन्यवाद।'],
          },
          push: { title: 'SOS समाप्त', body: '{name} का SOS समाप्त हो गया है: {how}।' },
        },
      },
    },
  },
} as const satisfies Record<string, Record<number, Template>>;

export type TemplateName = keyof typeof catalogue;
