# Donor means with a known prior of their variance, and limma's moderated t: Rscript limma_ebayes.R limma_ebayes.csv
suppressPackageStartupMessages(library(limma))
set.seed(20261125)
genes <- 300
donors <- 6
df0 <- 4
s0_squared <- 0.3
sd <- sqrt(s0_squared * df0 / rchisq(genes, df0))
means <- matrix(rnorm(genes * donors), genes) * sd
means[1:60, 4:6] <- means[1:60, 4:6] + rnorm(60, 0, 2)
fit <- eBayes(lmFit(means, cbind(1, rep(0:1, each = 3))))
table <- data.frame(
  means, coef = fit$coefficients[, 2], df0 = fit$df.prior, s0_squared = fit$s2.prior,
  squeezed = squeezeVar(fit$sigma^2, fit$df.residual)$var.post, t = fit$t[, 2], p = fit$p.value[, 2]
)
names(table)[1:donors] <- paste0("donor", 1:donors)
table[] <- lapply(table, signif, digits = 12)
write.csv(table, commandArgs(trailingOnly = TRUE)[1], row.names = FALSE, quote = FALSE)
cat("limma", as.character(packageVersion("limma")), "on", R.version.string, "\n")
