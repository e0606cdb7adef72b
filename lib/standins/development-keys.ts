/**
 * Keys that development's configuration shares with its simulated providers. They are public and protect nothing: production
 * refuses the configuration that has them.
 */

/** Signs what our service account says to Google, and what the simulated SNS says to us. */
const RSA_KEY = `-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCnU4RRO/r9eIWq
2++8U47oROAXZ8U9t0DvaWYDxi989fi0tQf8ViyQj+bRNd83Rba3HWRz0bqZGK2k
/Ik6x7iy94Q7zhGLkCFVq7QBwxYnNBJ7lW3mCo8eWOc2FpO0hkarMHhX0Hcka0GE
CGIkNPULfzxJowIugc4Ynshl2ffejg5pMqrMKsrc1JTGKQN2gjmNN0eRJJqOUcnU
NPsYWydFCH/Ye9H8wu4p8AhVD6js0iQlMmNw3TriN6+52ExsBQgCjmU0sIu7CHsO
STKaKtgQtb0sEBGIuIuCeXekSQcTp8Z15NH2ZcMUZTimiix/6aWnk4zC5KqtIb3W
WCKLLXGPAgMBAAECggEAAT7Gq8OoT8EnDa1kmDrTOMKh74MAusq9RI8FOBftgCcc
i7s0uY0qXKZauKASmHgIR98O18ZrHX26zqdSB5msKL/t5HOcKSn3XCZa8rFdj/3d
aL0fciQvlXnRriaEjsBu489LVlMXowWB7OWB8dBh8mB06q7DanVROwsb+5dGx3Nn
c3w/R4vUS0f+W7Ua5wsplAogl5gqaAF4SlsuYea4iJbGZOc9J794TitnaUxlMQ/H
auAPEVThvYgcr5uoySmgHJEKqT997+ZguX0MRfuwp4w6g/JmSZ0q7KECm8c1hmsi
+alnoJhrlZ34tHyppRCmZYbCzp2eY3XnXhIQfrSmcQKBgQDY7s+D0Fe0UHPb2eWB
pgC6pCp1vdykk8vLGwduRg6+POM+1FTJ6U64/ululbk8fMNhF57b+rUapT3DRG12
MqCG0EFE8RMpVKgclyyUS75PnuGTg8MapYc0F99snNKWuZOHcUd42Cbj7b6v2mDc
AjKHRb/BDuJEL1JKJ9hkb4YJ3wKBgQDFdbUf/qGu+8c7UnF94S1VqD5F6nsRuC2L
EGe1/mpOcSIxfs4fX0rfciFflVVeGwpMxKmjjiVTp55gCWG6zm3jg2twYA+w+Vdb
jqhO5OHjgMf6JGz5WFj2WWrTiSOHbQb/PDDc4L1SiiVJd4R5YbrTEedWovpUrAHi
53lurEnuUQKBgQCEyLCmu3ljurcgRGDyGd1qYSBIT73l0z20BchnnGRb18M1axy3
NqLkI8xYzzbCKpAhNyca+XuvYqPKiXEDH3wY6RJ6k6Gp89KvJW25HB/SdqsW81kS
T23R2ib9QYS5k8AU8KbR9mTfsV++HkqZgJLTMENudaDUIa8aCweueoEuOwKBgBQU
C/7c3YP1hiS6FWA/bWSwXuStGyaKG9dwK5uN6zFev6NYyYzXG73s1QfrH2saRMnZ
lYZUBeeju674RT/Bjdr8mggrPG06bW+Z6fNbwrxnc+4zlgEkwqcKIJqx7zLuGzAI
5s8O6zFhark1tfrBvUWJJITivaGue+KetvJSApKBAoGAGNnZj9O4VFdaLDLpYZek
WEzBKSbU3OUIcdJK5Em74OWfrHOAVtVn4s1XKzCrxd+JqWAGUz2WbETLntkDvKig
KAMUVMDYMyTZyZ3cEY4g7KNsOEJslUBugRsyTLp+gs+XryBcnjYtpobuut2uOc4+
SXEaRtqKIjARhJlJaJAyNUM=
-----END PRIVATE KEY-----`;

/** The service account of FCM. */
export const DEVELOPMENT_SERVICE_ACCOUNT = {
  project_id: 'development-only',
  client_email: 'push@development-only.iam.gserviceaccount.com',
  private_key: RSA_KEY,
  token_uri: 'https://oauth2.googleapis.com/token',
};

/** The SNS topic that SES tells its events to, and the key and certificate of its messages. */
export const DEVELOPMENT_SNS = {
  topicArn: 'arn:aws:sns:ap-south-1:000000000000:development-only',
  privateKey: RSA_KEY,
  certificate: `-----BEGIN CERTIFICATE-----
MIIDITCCAgmgAwIBAgIUMsdZc4lCo784TsbS81i34FvHT64wDQYJKoZIhvcNAQEL
BQAwHzEdMBsGA1UEAwwUc25zLmRldmVsb3BtZW50LW9ubHkwIBcNMjYxMTI0MjAy
MjMzWhgPMjEyNjEwMzEyMDIyMzNaMB8xHTAbBgNVBAMMFHNucy5kZXZlbG9wbWVu
dC1vbmx5MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAp1OEUTv6/XiF
qtvvvFOO6ETgF2fFPbdA72lmA8YvfPX4tLUH/FYskI/m0TXfN0W2tx1kc9G6mRit
pPyJOse4sveEO84Ri5AhVau0AcMWJzQSe5Vt5gqPHljnNhaTtIZGqzB4V9B3JGtB
hAhiJDT1C388SaMCLoHOGJ7IZdn33o4OaTKqzCrK3NSUxikDdoI5jTdHkSSajlHJ
1DT7GFsnRQh/2HvR/MLuKfAIVQ+o7NIkJTJjcN064jevudhMbAUIAo5lNLCLuwh7
DkkymirYELW9LBARiLiLgnl3pEkHE6fGdeTR9mXDFGU4poosf+mlp5OMwuSqrSG9
1lgiiy1xjwIDAQABo1MwUTAdBgNVHQ4EFgQU6HntWJUo5TzIQ+5YMsB9kYU8qN8w
HwYDVR0jBBgwFoAU6HntWJUo5TzIQ+5YMsB9kYU8qN8wDwYDVR0TAQH/BAUwAwEB
/zANBgkqhkiG9w0BAQsFAAOCAQEAGXgbMxw/AzU8YZmmdY0Va6Z/HeEtVXO3y3Ma
pB2McaFy/5S43/+M0fwJrWPfA7CwmUmgTiSrj5EQgIr3OiVwrIYe7gRYBGjdPqoG
pT9+KLLqRYzpMSpmjC0NLBweTuTEP9q2FZGKtXGdI27MIyCQC6XuNzqX41VScY2N
769XgX2C4IX7JFa416tNOGuWyllNqgazCovobZNhSoQ1Xh/o3d183KD45SWrG5Qc
oj1gLM41ID8rUsaq/m9Rnbw+7nGMk8UhIgGxLMFY1rR/ST1X+uP0Hx3Om8Q1Zm+c
L4oXKMebs3YD/F/9XXBYEzMjqYFsnp/Ua8VNYd3PczKPRQT31w==
-----END CERTIFICATE-----`,
};

/** SendGrid's event webhook: the private key (PKCS 8, P-256), and the public one as SendGrid shows it (DER in base64). */
export const DEVELOPMENT_SENDGRID_WEBHOOK = {
  privateKey: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgw50Ob943nwNWBjWG
C2zs66yVTd6yt7LT1IzDW/cKWTWhRANCAAQ+hmiJVbivdAd+WqwIB2XduSqA3REx
z2Tpid+vrGHEsWg6kS7GzgK+YCi8jRKgsT0JyItBxXVBbloSZYyXEKUd
-----END PRIVATE KEY-----`,
  publicKey:
    'MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEPoZoiVW4r3QHflqsCAdl3bkqgN0RMc9k6Ynfr6xhxLFoOpEuxs4CvmAovI0SoLE9CciLQcV1QW5aEmWMlxClHQ==',
};

/** What the others share with us as it is. */
export const DEVELOPMENT_SECRET = 'development-only';
