import sys,time,torch
from leakboard.config import Images
from leakboard.config.recipes import Generator, Classifier
from leakboard.config.sections import Network, Training
from leakboard.recipes import classifier, generator
from leakboard.data import select
import os
torch.set_num_threads(1)
D='/tmp/gmi_exp'; os.makedirs(D,exist_ok=True)
what=sys.argv[1]
base=dict(name='mnist',size=32,split='train')
def cls(net,width,images,epochs,seed,f):
    r=Classifier(network=Network(name=net,width=width),training=Training(images=images,epochs=epochs,batch=64,learning_rate=.05,augment=False),data=Images(**base),seed=seed)
    m=classifier.untrained(r); t=time.process_time()
    x,y=select(r.trained_on).take(); classifier.train(m,r,x,y)
    xt,yt=select(Images(name='mnist',size=32,split='test',count=2000)).take()
    with torch.no_grad(): acc=float((m(xt).argmax(1)==yt).float().mean())
    print(f,net,width,len(x),epochs,'acc',acc,'cpu',round(time.process_time()-t),flush=True); torch.save(m.state_dict(),f'{D}/{f}.pt')
def gan(f,seed,**k):
    k={**dict(noise=100,width=16,epochs=25,critic_steps=3),**k}
    classes=k.pop('classes','5-9'); count=k.pop('count',3200)
    r=Generator(images=Images(**base,classes=classes,start=15000,count=count),seed=seed,**k)
    p=generator.untrained(r); x,y=select(r.images).take(); t=time.process_time(); generator.train(p,r,x,y)
    print(f,'cpu',round(time.process_time()-t),flush=True); torch.save(p.state_dict(),f'{D}/{f}.pt')
if what=='cls':
    cls('mcnn',32,Images(count=10000),3,1,'target')
    cls('scnn',16,Images(start=10000,count=20000),2,2,'evaluator')
elif what=='gan':
    gan('g0',0); gan('g1',1)
    gan('l0',0,layers='linear',form='dcgan',critic_steps=1,epochs=30)
